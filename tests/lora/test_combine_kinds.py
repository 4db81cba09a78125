"""Kinds other than LoRA as LoRA, exactly or nearly; merged, made smaller, and out of a fine-tune."""

import copy

import pytest
import torch

from adapt.errors import AdapterError, SettingsError
from adapt.formats import Dora, LoHa, LoKr, LoraWeights, Pair
from adapt.formats.boft import Boft
from adapt.formats.exactly import as_lora
from adapt.formats.factorise import Keep
from adapt.formats.oft import Oft
from adapt.formats.rows import Rows
from adapt.formats.vera import Vera
from adapt.lora import Applied
from adapt.lora.combine import METHODS, combined
from adapt.lora.decompose import factors
from adapt.lora.extract import extracted
from adapt.lora.nearest import nearest_weights
from adapt.lora.resize import resized


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape) + sum(shape)))


HADAMARD = LoHa(randn(24, 2), randn(2, 20), randn(24, 2, seed=1), randn(2, 20, seed=1), 3.0)
KRONECKER = LoKr(3.0, w1=randn(3, 4), w2_a=randn(8, 2), w2_b=randn(2, 5))
ADDED = {
    "loha": (HADAMARD, (24, 20), 4),
    "loha of a convolution": (LoHa(randn(24, 2), randn(2, 36), randn(24, 2, seed=1), randn(2, 36), 3.0), (24, 4, 3, 3), 4),
    "loha with cores": (
        LoHa(randn(2, 24), randn(2, 9), randn(2, 24, seed=1), randn(2, 9, seed=1), 3.0, randn(2, 2, 3, 3), randn(2, 2, 3, 3)),
        (24, 9, 3, 3), 4,
    ),
    "loha of a rank as large as the weight": (LoHa(randn(6, 3), randn(3, 8), randn(6, 3, seed=1), randn(3, 8), 3.0), (6, 8), 6),
    "lokr": (KRONECKER, (24, 20), 6),
    "lokr, both in two": (LoKr(3.0, w1_a=randn(6, 2), w1_b=randn(2, 5), w2_a=randn(8, 2), w2_b=randn(2, 5)), (48, 25), 4),
    "lokr, whole, of a convolution": (LoKr(1.0, w1=randn(2, 3), w2=randn(4, 5, 3, 3)), (8, 15, 3, 3), 8),
    "lokr with a core": (
        LoKr(3.0, w1=randn(2, 3), w2_a=randn(2, 8), w2_b=randn(2, 5), t2=randn(2, 2, 3, 3)), (16, 15, 3, 3), 4,
    ),
    "vera": (Vera(randn(24), randn(3), randn(3, 40), randn(50, 3)), (24, 20), 3),
    "rows of a lokr": (Rows(KRONECKER, 3, 15), (12, 20), 6),
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_a_product_of_small_matrices_is_a_lora_exactly(name):
    layer, shape, rank = ADDED[name]
    found = as_lora(layer, torch.empty(shape))
    assert found.kind == "lora" and found.rank == rank and found.fits(shape)
    wanted = layer.delta(shape)
    assert float((found.delta() - wanted).norm() / wanted.norm()) < 1e-5


class Small(torch.nn.Module):
    """Two weights, in which each kind has a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b = torch.nn.Linear(20, 24), torch.nn.Linear(20, 24)


@pytest.fixture(scope="module")
def base():
    return {"unet": Small().requires_grad_(False)}


def pair(seed=5):
    return Pair(randn(3, 20, seed=seed), randn(24, 3, seed=seed), 2.0)


KINDS = {
    "lora": pair(),
    "dora": Dora(pair(9).down * 0.1, pair(9).up * 0.1, 2.0, randn(24, 1).abs()),
    "loha": HADAMARD,
    "lokr": KRONECKER,
    "oft": Oft(0.1 * randn(5, 6)),
    "boft": Boft(0.1 * randn(1, 5, 4, 4), 1 + 0.1 * randn(24, 1)),
    "vera": Vera(randn(24), randn(3), randn(3, 40), randn(50, 3)),
}


def adapter(kind, names=("a", "b")):
    return LoraWeights({"unet": dict.fromkeys(names, KINDS[kind])})


def effect(base, weights, scale):
    """W' - W of weight `a`, by laying it on."""
    weight = base["unet"].a.weight
    before = weight.clone()
    with Applied(base, {"unet.a": weights.modules["unet"]["a"]}, scale):
        return weight - before


def close(a, b, tolerance=1e-5):
    return float((a - b).norm() / b.norm()) < tolerance


def test_linear_of_kinds_that_add_is_the_exact_sum(base):
    three = [(adapter("lora"), 0.7), (adapter("loha"), -0.4), (adapter("lokr", names=("a",)), 1.5)]
    found, left_out = combined(three, "linear", Keep(), modules=base)
    assert left_out == 0 and found.kinds == {"lora"}
    assert (found.modules["unet"]["a"].rank, found.modules["unet"]["b"].rank) == (3 + 4 + 6, 3 + 4)
    assert close(found.modules["unet"]["a"].delta(), sum(effect(base, w, s) for w, s in three))


@pytest.mark.parametrize("kind", ["dora", "oft", "boft"])
def test_kinds_that_turn_the_weight_are_merged_by_what_they_do_to_it(base, kind):
    two = [(adapter(kind, names=("a",)), 0.6), (adapter("loha", names=("a",)), 0.5)]
    wanted = sum(effect(base, w, s) for w, s in two)
    found, left_out = combined(two, "svd", Keep(), modules=base)
    assert left_out < 1e-5 and close(found.modules["unet"]["a"].delta(), wanted)
    small, left_out = combined(two, "svd", Keep(rank=4), modules=base)
    lost = (small.modules["unet"]["a"].delta() - wanted).norm() / wanted.norm()
    assert left_out == pytest.approx(float(lost), rel=1e-2) and small.modules["unet"]["a"].rank == 4
    with pytest.raises(AdapterError, match="no LoRA does exactly") as refused:
        combined(two, "linear", Keep(), modules=base)
    assert "--method svd" in refused.value.next


@pytest.mark.parametrize("method", ["ties", "dare", "magnitude-prune"])
def test_rules_work_on_every_kind(base, method):
    found, _ = combined([(adapter(kind), 0.5) for kind in KINDS], method, Keep(rank=5), density=1.0, modules=base)
    assert {layer.rank for layer in found.modules["unet"].values()} == {5}
    if method != "ties":  # nothing is left out at density 1
        whole, _ = combined([(adapter(kind), 0.5) for kind in KINDS], method, Keep(), density=1.0, modules=base)
        assert close(whole.modules["unet"]["a"].delta(), sum(effect(base, adapter(kind), 0.5) for kind in KINDS))


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "oft", "boft", "vera"])
def test_without_its_base_it_is_refused(kind):
    for method in METHODS:
        with pytest.raises(AdapterError, match="without its base") as refused:
            combined([(adapter("lora"), 1.0), (adapter(kind), 1.0)], method, Keep(rank=2))
        assert "--base" in refused.value.next


def test_another_base_is_refused():
    wide = {"unet": torch.nn.ModuleDict({"a": torch.nn.Linear(20, 25), "b": torch.nn.Linear(20, 25)})}
    with pytest.raises(AdapterError, match="another base"):
        combined([(adapter("lora"), 1.0), (adapter("loha"), 1.0)], "svd", Keep(rank=2), modules=wide)


# ----------------------------------------------------------------------------------------------------------------- resize
@pytest.mark.parametrize("kind", ["loha", "lokr", "oft", "boft", "vera"])
def test_another_kind_made_smaller_is_the_nearest_lora(base, kind):
    given = adapter(kind, names=("a",))
    wanted = effect(base, given, 1.0)
    tail = torch.linalg.svdvals(wanted)
    for rank in (2, 20):
        found, left_out = resized(given, Keep(rank=rank), base)
        assert found.kinds == {"lora"}
        lost = float(tail[rank:].square().sum() / tail.square().sum()) ** 0.5
        assert left_out == pytest.approx(lost, rel=1e-3, abs=1e-5)
        assert float((found.modules["unet"]["a"].delta() - wanted).norm() / wanted.norm()) == pytest.approx(
            lost, rel=1e-3, abs=1e-5
        )
        assert nearest_weights(base, given, rank)[1] == pytest.approx(left_out, abs=1e-6)
    with pytest.raises(AdapterError, match="without its base"):
        resized(given, Keep(rank=2))


def test_a_dora_made_smaller_stays_one_and_keeps_its_lengths(base):
    found, left_out = resized(adapter("dora"), Keep(rank=2))
    layer, before = found.modules["unet"]["a"], KINDS["dora"]
    assert layer.kind == "dora" and layer.rank == 2 and layer.magnitude.equal(before.magnitude)
    tail = torch.linalg.svdvals(before.delta())
    assert left_out == pytest.approx(float(tail[2:].square().sum() / tail.square().sum()) ** 0.5, rel=1e-3)
    whole, left_out = resized(adapter("dora"), Keep(rank=3))
    assert left_out < 1e-5 and close(effect(base, whole, 1.0), effect(base, adapter("dora"), 1.0))


# ---------------------------------------------------------------------------------------------------------------- extract
def tuned(base, layers):
    found = copy.deepcopy(base)
    Applied(found, {f"unet.{name}": layer for name, layer in layers.items()}, 1.0).keep()
    return found


def test_a_dora_out_of_a_fine_tune_has_its_lengths_exactly_and_at_full_rank_all_of_it(base):
    both = tuned(base, {"a": KINDS["dora"], "b": KINDS["loha"]})
    whole = extracted(both, base, Keep(), kind="dora")
    assert whole.left_out < 1e-4 and whole.weights.kinds == {"dora"}
    few = extracted(both, base, Keep(rank=2), kind="dora")
    with Applied(base, {"unet.a": few.weights.modules["unet"]["a"]}, 1.0):
        made, wanted = base["unet"].a.weight, both["unet"].a.weight
        assert torch.allclose(made.norm(dim=1), wanted.norm(dim=1), rtol=1e-5)


def test_what_changed_lengths_and_few_directions_is_said_better_by_a_dora(base):
    weight = base["unet"].a.weight
    stretched = Dora(
        0.05 * pair().down, 0.05 * pair().up, 2.0, weight.norm(dim=1, keepdim=True) * (1 + randn(24, 1).abs())
    )
    both = tuned(base, {"a": stretched})
    dora, lora = (extracted(both, base, Keep(rank=4), kind=kind).left_out for kind in ("dora", "lora"))
    assert dora < 0.1 * lora


def test_a_kronecker_product_is_found_again_and_the_nearest_is_better_than_its_neighbours(base):
    own = LoKr(1.0, w1=randn(4, 4), w2_a=randn(6, 2), w2_b=randn(2, 5))
    found = extracted(tuned(base, {"a": own}), base, Keep(), kind="lokr")
    layer = found.weights.modules["unet"]["a"]
    assert found.left_out < 1e-4 and layer.rank == 2 and layer.w2 is None
    other = extracted(tuned(base, {"a": KINDS["loha"]}), base, Keep(), kind="lokr")
    nearest = other.weights.modules["unet"]["a"]
    wanted = KINDS["loha"].delta()
    size = float((nearest.delta() - wanted).norm())
    assert other.left_out == pytest.approx(size / float(wanted.norm()), rel=1e-3)
    for seed in range(5):
        near = LoKr(
            1.0, w1=nearest.left + 0.01 * randn(4, 4, seed=seed), w2=nearest.right + 0.01 * randn(6, 5, seed=seed)
        )
        assert float((near.delta() - wanted).norm()) > size


@pytest.mark.parametrize("size", [1, 7, 16, 320, 640, 1280])
def test_factors_are_pefts(size):
    from peft.tuners.lokr.layer import factorization

    assert factors(size) == tuple(factorization(size, -1))


def test_what_has_no_closed_form_is_refused():
    from adapt.api.tools import require_extractable

    for kind in ("loha", "oft", "ia3"):
        with pytest.raises(SettingsError, match=f"extracted as {kind}"):
            require_extractable(kind)
