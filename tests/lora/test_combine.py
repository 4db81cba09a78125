"""Merging, resizing and extracting against their definitions."""

import copy

import pytest
import torch

from adapt.errors import AdapterError, SettingsError
from adapt.formats import LoraWeights, Pair
from adapt.formats.factorise import Keep, nearest, nearest_to
from adapt.lora import Applied
from adapt.lora.combine import METHODS, combined
from adapt.lora.extract import extracted
from adapt.lora.resize import resized


def pair(out, inside, seed, rank=3, alpha=2.0, kernel=()):
    dice = torch.Generator().manual_seed(seed)
    ones = [1] * len(kernel)
    return Pair(
        torch.randn(rank, inside, *kernel, generator=dice), torch.randn(out, rank, *ones, generator=dice), alpha
    )


def weights(seed, names=("a", "b"), **changes):
    layers = {name: pair(12, 10, seed * 10 + i, **changes) for i, name in enumerate(names)}
    return LoraWeights({"unet": {**layers, "conv": pair(8, 4, seed, kernel=(3, 3), **changes)}})


def delta(found, name):
    layer = found.modules["unet"].get(name)
    return 0.0 if layer is None else layer.delta()


def test_linear_is_the_exact_sum_of_three_at_their_weights():
    three = [(weights(1), 0.7), (weights(2, rank=5, alpha=1.0), -0.4), (weights(3, names=("b", "c")), 1.5)]
    found, left_out = combined(three, "linear", Keep())
    assert left_out == 0 and set(found.modules["unet"]) == {"a", "b", "c", "conv"}
    for name in found.modules["unet"]:
        wanted = sum(scale * delta(each, name) for each, scale in three)
        assert torch.allclose(found.modules["unet"][name].delta(), wanted, atol=1e-5)
        assert found.modules["unet"][name].scale == 1.0
    assert found.modules["unet"]["a"].rank == 8


def test_svd_is_the_nearest_of_its_rank_to_the_sum():
    two = [(weights(1), 0.7), (weights(2), -0.4)]
    found, left_out = combined(two, "svd", Keep(rank=2))
    lost = whole = 0.0
    for name, layer in found.modules["unet"].items():
        wanted = sum(scale * delta(each, name) for each, scale in two)
        tail = torch.linalg.svdvals(wanted.flatten(1))[2:].square().sum()
        assert layer.rank == 2 and float((layer.delta() - wanted).square().sum()) == pytest.approx(
            float(tail), rel=1e-3
        )
        lost, whole = lost + float(tail), whole + float(wanted.square().sum())
    assert left_out == pytest.approx((lost / whole) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("method", ["ties", "magnitude-prune", "dare"])
def test_rules_are_pefts_on_the_differences(method):
    from peft.utils import merge_utils

    two = [(weights(1), 0.7), (weights(2, names=("a",)), 0.6)]
    found, _ = combined(two, method, Keep(), density=0.4, seed=5)
    for name, layer in found.modules["unet"].items():
        deltas = [delta(each, name) if name in each.modules["unet"] else torch.zeros(layer.shape) for each, _ in two]
        scales = torch.tensor([0.7, 0.6])
        if method == "dare":  # kept entries are divided by the density, and about as many are kept
            full = torch.stack([d / 0.4 for d in deltas])
            choices = [a * full[0] * 0.7 + b * full[1] * 0.6 for a in (0, 1) for b in (0, 1)]
            near = torch.stack([(layer.delta() - choice).abs() for choice in choices]).min(0).values
            assert float(near.max()) < 1e-4
            continue
        rule = {"ties": merge_utils.ties, "magnitude-prune": merge_utils.magnitude_prune}[method]
        assert torch.allclose(layer.delta(), rule(deltas, scales, 0.4), atol=1e-4), name


def test_dares_choice_is_a_function_of_the_seed_alone():
    two = [(weights(1), 1.0), (weights(2), 1.0)]
    torch.manual_seed(1)
    first, _ = combined(two, "dare", Keep(rank=4), seed=3)
    torch.manual_seed(2)
    again, _ = combined(two, "dare", Keep(rank=4), seed=3)
    other, _ = combined(two, "dare", Keep(rank=4), seed=4)
    assert first.equals(again) and not first.equals(other)


def test_what_cannot_be_merged_is_refused():
    wide = LoraWeights({"unet": {"a": pair(12, 11, 0)}})
    for method in METHODS:
        with pytest.raises(AdapterError, match="different bases"):
            combined([(weights(1), 1.0), (wide, 1.0)], method, Keep(rank=2))
    with pytest.raises(SettingsError, match="unknown method"):
        combined([(weights(1), 1.0)], "slerp", Keep())
    for density in (0.0, 1.1, -1):
        with pytest.raises(SettingsError, match="density"):
            combined([(weights(1), 1.0)], "ties", Keep(), density=density)


# ----------------------------------------------------------------------------------------------------------------- resize
@pytest.mark.parametrize("keep", [Keep(rank=2), Keep(energy=0.8), Keep(ratio=1.5), Keep(rank=3, energy=0.99)])
def test_what_a_resize_leaves_out_is_the_tail_of_singular_values(keep):
    large = weights(4, rank=6)
    found, left_out = resized(large, keep)
    lost = whole = 0.0
    for name, layer in found.modules["unet"].items():
        s = torch.linalg.svdvals(delta(large, name).flatten(1))
        tail = s[layer.rank :].square().sum()
        assert float((layer.delta() - delta(large, name)).square().sum()) == pytest.approx(
            float(tail), rel=1e-3, abs=1e-6
        )
        lost, whole = lost + float(tail), whole + float(s.square().sum())
        share = float(s[: layer.rank].square().sum() / s.square().sum())
        if keep.energy and keep.rank is None:
            assert share >= keep.energy > float(s[: layer.rank - 1].square().sum() / s.square().sum())
        if keep.ratio:
            assert s[layer.rank - 1] >= s[0] / keep.ratio and (layer.rank == 6 or s[layer.rank] < s[0] / keep.ratio)
    assert left_out == pytest.approx((lost / whole) ** 0.5, rel=1e-3)


def test_by_qr_is_the_same_as_by_all_of_the_difference():
    for layer in (pair(12, 10, 0), pair(8, 4, 1, kernel=(3, 3)), pair(3, 4, 2, rank=9)):
        small, lost = nearest_to(layer, 2)
        whole, also_lost = nearest(layer.delta(), 2)
        assert torch.allclose(small.delta(), whole.delta(), atol=1e-4)
        assert float(lost) == pytest.approx(float(also_lost), rel=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"energy": 0.0}, {"energy": 1.1}, {"ratio": 0.5}, {"energy": float("nan")}]
)
def test_rules_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match="out of range"):
        Keep(**wrong)


# ---------------------------------------------------------------------------------------------------------------- extract
def test_an_extraction_at_full_rank_is_what_was_added(plain, unet):
    names = ("conv_in", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.time_emb_proj")
    added = {}
    for seed, name in enumerate(names):
        out, *inside = unet.get_submodule(name).weight.shape
        added[name] = pair(out, inside[0], seed, kernel=tuple(inside[1:]))
    tuned = copy.deepcopy(unet)
    Applied({"unet": tuned}, {f"unet.{n}": layer for n, layer in added.items()}, 1.0).keep()
    with torch.no_grad():
        tuned.conv_in.bias += 1
    found = extracted({"unet": tuned}, {"unet": plain}, Keep())
    assert set(found.weights.modules["unet"]) == set(names) and found.elsewhere == ("unet.conv_in.bias",)
    for name, layer in added.items():
        assert torch.allclose(found.weights.modules["unet"][name].delta(), layer.delta(), atol=1e-4)
    fewer = extracted({"unet": tuned}, {"unet": plain}, Keep(energy=0.9))
    assert 0 < fewer.left_out < 0.35
    assert sum(layer.rank for layer in fewer.weights.modules["unet"].values()) < 9 + sum(
        found.weights.modules["unet"][n].rank for n in names
    )


def test_the_same_model_and_another_one_are_refused(plain, make_tiny):
    with pytest.raises(AdapterError, match="same weights"):
        extracted({"unet": plain}, {"unet": plain}, Keep())
    with pytest.raises(AdapterError, match="not of this base"):
        extracted({"unet": make_tiny(width=24).unet}, {"unet": plain}, Keep())
