"""LoRA inside a model: nothing at the start, W + scale · alpha / r · B A afterwards, and gone without a trace."""

import copy

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from adapt.errors import AdapterError, SettingsError
from adapt.formats import Pair
from adapt.lora import Applied, Dice, PlannedDropout, inject

TARGETS = ("to_q", "to_out.0", "ff.net.0.proj", "conv1", "conv_in", "time_emb_proj")
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(1))
T = torch.tensor([10, 800])


@pytest.fixture(scope="module")
def base(make_tiny):
    return make_tiny().unet.eval().requires_grad_(False)


@pytest.fixture
def unet(base):
    return copy.deepcopy(base)


def _inject(unet, rank=3, alpha=7.0, dropout=0.0, targets=TARGETS, seed=0):
    return inject(unet, rank=rank, alpha=alpha, dropout=dropout, targets=targets, seed=seed)


@torch.no_grad()
def _predict(unet):
    return unet(X, T, encoder_hidden_states=TOKENS, return_dict=False)[0]


def _trained(injection, seed=5, scale=0.1):
    """B is filled as training would."""
    generator = torch.Generator().manual_seed(seed)
    values = {n: scale * torch.randn(p.shape, generator=generator) for n, p in injection.parameters.items()}
    injection.assign(values)
    return injection


def _bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------------ training
def test_the_start_is_the_identity_bit_for_bit(unet):
    before = _predict(unet)
    injection = _inject(unet)
    assert torch.equal(_predict(unet), before)
    assert {name.rpartition(".lora_")[2][0] for name in injection.parameters} == {"A", "B"}
    assert all(p.any() == (".lora_A." in name) for name, p in injection.parameters.items())


def test_the_start_depends_on_the_seed_and_the_name_alone(base):
    first, other = (_inject(copy.deepcopy(base), seed=seed).parameters for seed in (3, 4))
    torch.manual_seed(99)
    again = _inject(copy.deepcopy(base), seed=3, targets=(*TARGETS, "to_k")).parameters
    downs = [name for name in first if ".lora_A." in name]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    assert len({first[name].flatten()[0].item() for name in downs}) == len(downs)


def test_the_start_has_the_spread_of_pefts(base):
    """Kaiming-uniform with a = √5: even in ± 1/√fan_in."""
    ours = _inject(copy.deepcopy(base), rank=32).parameters
    for name, parameter in ours.items():
        if ".lora_A." in name and parameter.numel() > 400:
            bound = parameter[0].numel() ** -0.5
            assert parameter.abs().max() <= bound
            assert float(parameter.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1), name


def test_only_lora_is_trained_and_all_of_it(unet):
    injection = _trained(_inject(unet))
    trainable = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert trainable == set(injection.parameters)
    assert len(trainable) > 20
    before = _bits(unet)
    unet.train()
    loss = unet(X, T, encoder_hidden_states=TOKENS, return_dict=False)[0].square().mean()
    loss.backward()
    torch.optim.AdamW(injection.parameters.values(), lr=1e-2).step()
    changed = {name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trainable


def test_the_first_step_moves_every_b(unet):
    """With B = 0 the gradient of A is 0: it is B that starts."""
    injection = _inject(unet)
    unet(X, T, encoder_hidden_states=TOKENS, return_dict=False)[0].square().mean().backward()
    for name, parameter in injection.parameters.items():
        assert bool(parameter.grad.any()) == (".lora_B." in name), name


def test_parameters_are_fp32_in_a_half_model(base):
    injection = _inject(copy.deepcopy(base).to(torch.bfloat16))
    assert {p.dtype for p in injection.parameters.values()} == {torch.float32}


def test_targets_that_fit_no_layer_are_named_and_nothing_stays_inside(unet):
    before, names = _bits(unet), [type(m) for m in unet.modules()]
    for targets in (("to_quack",), ("to_q", "norm1")):
        with pytest.raises(SettingsError, match=targets[-1]):
            _inject(unet, targets=targets)
        assert _same(_bits(unet), before) and [type(m) for m in unet.modules()] == names
    _inject(unet)


# ------------------------------------------------------------------------------------------------------- the arithmetic
def test_delta_is_that_of_peft(unet):
    injection = _trained(_inject(unet, rank=3, alpha=7.0))
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
    pairs = injection.layers()
    assert pairs.keys() == layers.keys()
    kinds = {type(layer.base_layer) for layer in layers.values()}
    assert kinds == {nn.Linear, nn.Conv2d}
    for name, pair in pairs.items():
        delta = layers[name].get_delta_weight("default")
        assert delta.abs().max() > 1e-3
        assert torch.allclose(pair.delta(), delta, atol=1e-6), name


def test_delta_of_a_linear_layer_by_hand():
    down, up = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert Pair(down, up, alpha=3.0).delta().tolist() == [[1.5, 3.0, 4.5], [0.0, 3.0, 0.0]]


@pytest.mark.parametrize("alpha", [1.0, 0.1, 7.0, 16.0])
def test_alpha_is_kept_exactly(base, alpha):
    pairs = _inject(copy.deepcopy(base), rank=49, alpha=alpha).layers()
    assert {pair.alpha for pair in pairs.values()} == {alpha}
    assert {pair.rank for pair in pairs.values()} == {49}


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0, 2.0])
def test_applied_weights_are_w_plus_scaled_delta(base, unet, scale):
    pairs = _trained(_inject(copy.deepcopy(base))).layers()
    before = _bits(unet)
    with Applied({"unet": unet}, {f"unet.{name}": pair for name, pair in pairs.items()}, scale):
        for name, tensor in unet.state_dict().items():
            layer = name.removesuffix(".weight")
            pair = pairs.get(layer) if name.endswith(".weight") else None
            wanted = before[name]
            if pair is not None:
                wanted = wanted + scale * 7.0 / 3 * (pair.up.flatten(1) @ pair.down.flatten(1)).view_as(wanted)
            assert torch.allclose(tensor, wanted, atol=1e-6), name
    assert _same(_bits(unet), before)


def test_a_double_model_keeps_its_precision(base):
    unet = copy.deepcopy(base).double()
    for p in unet.parameters():
        p.mul_(1 + 1e-12)
    name = "conv_in"
    pair = Pair(torch.full((1, 4, 3, 3), 1e-3), torch.full((16, 1, 1, 1), 1e-3), 1.0)
    before = unet.conv_in.weight.clone()
    with Applied({"unet": unet}, {f"unet.{name}": pair}, 1.0):
        assert torch.allclose(unet.conv_in.weight, before + 1e-6, rtol=0, atol=1e-12)


def test_injected_and_applied_predict_the_same(base, unet):
    injection = _trained(_inject(unet))
    injected, plain = _predict(unet), _predict(base)
    assert (injected - plain).abs().max() > 0.05
    other = copy.deepcopy(base)
    with Applied({"unet": other}, {f"unet.{n}": p for n, p in injection.layers().items()}, 1.0):
        assert (_predict(other) - injected).abs().max() <= 1e-5


# --------------------------------------------------------------------------------------------------- taking it out again
def test_disabled_is_the_base_and_comes_back(base, unet):
    injection = _trained(_inject(unet))
    plain, adapted = _predict(base), _predict(unet)
    with injection.disabled():
        assert torch.equal(_predict(unet), plain)
        with injection.disabled():
            assert torch.equal(_predict(unet), plain)
        assert torch.equal(_predict(unet), plain)
    assert torch.equal(_predict(unet), adapted)
    with pytest.raises(KeyError), injection.disabled():
        raise KeyError
    assert torch.equal(_predict(unet), adapted)
    assert all(p.requires_grad for p in injection.parameters.values())


def test_removal_restores_structure_and_bits(base, unet):
    before, structure = _bits(unet), [(n, type(m)) for n, m in unet.named_modules()]
    attributes = set(vars(unet))
    _trained(_inject(unet, dropout=0.5)).remove()
    assert [(n, type(m)) for n, m in unet.named_modules()] == structure
    assert _same(_bits(unet), before)
    assert set(vars(unet)) == attributes
    assert torch.equal(_predict(unet), _predict(base))
    assert torch.equal(_predict(_inject(unet).module), _predict(base))  # and it can go in again


def test_holding_other_values_is_temporary(unet):
    injection = _trained(_inject(unet))
    before = {name: p.detach().clone() for name, p in injection.parameters.items()}
    with pytest.raises(KeyError), injection.holding({name: p + 1 for name, p in before.items()}):
        assert all(torch.equal(p, before[name] + 1) for name, p in injection.parameters.items())
        raise KeyError
    assert all(torch.equal(p, before[name]) for name, p in injection.parameters.items())


def test_pairs_of_an_average_are_not_the_parameters(unet):
    injection = _inject(unet)
    values = {name: torch.ones_like(p) for name, p in injection.parameters.items()}
    assert all(pair.up.eq(1).all() for pair in injection.layers(values).values())
    first = next(iter(injection.layers().values()))
    first.up.add_(1)
    assert not any(p.any() for n, p in injection.parameters.items() if ".lora_B." in n)


def test_unload_restores_bit_for_bit_also_nested_and_after_an_exception(base, unet):
    before = _bits(unet)
    pairs = [_trained(_inject(copy.deepcopy(base)), seed=seed).layers() for seed in (1, 2)]
    first, second = ({f"unet.{n}": p for n, p in found.items()} for found in pairs)
    with Applied({"unet": unet}, first, 1.0):
        once = _bits(unet)
        assert not _same(once, before)
        with pytest.raises(KeyError), Applied({"unet": unet}, second, 0.7):
            assert not _same(_bits(unet), once)
            raise KeyError
        assert _same(_bits(unet), once)
    assert _same(_bits(unet), before)


def test_another_base_is_refused_before_a_weight_is_touched(unet):
    before = _bits(unet)
    good = {"unet.conv_in": Pair(torch.ones(1, 4, 3, 3), torch.ones(16, 1, 1, 1), 1.0)}
    for bad in (
        {"unet.conv_in.nothing": Pair(torch.ones(1, 4), torch.ones(16, 1), 1.0)},
        {"unet.conv_out": Pair(torch.ones(1, 8, 3, 3), torch.ones(4, 1, 1, 1), 1.0)},
        {"unet.conv_out": Pair(torch.ones(1, 16), torch.ones(4, 1), 1.0)},
        {"unet.down_blocks": Pair(torch.ones(1, 16), torch.ones(4, 1), 1.0)},
    ):
        with pytest.raises(AdapterError, match="another base"):
            Applied({"unet": unet}, {**good, **bad}, 1.0)
        assert _same(_bits(unet), before)


# -------------------------------------------------------------------------------------------------------------- dropout
def _dropped(p=0.5, layer=0, step=0, positions=range(8), seed=0):
    dropout = PlannedDropout(p, layer, Dice(seed, step, positions))
    return dropout(torch.ones(len(positions), 6, 50))


def test_a_mask_is_a_function_of_the_position_in_the_batch():
    whole = _dropped()
    for positions in (range(4), range(4, 8), [6, 1], [3]):
        part = _dropped(positions=positions)
        assert torch.equal(part, whole[list(positions)])


def test_masks_differ_between_rows_steps_layers_and_runs():
    rows = [row.flatten().tolist() for row in _dropped()]
    others = [_dropped(**{what: 1})[0].flatten().tolist() for what in ("step", "layer", "seed")]
    assert len({tuple(row) for row in [*rows, *others]}) == 11


def test_dropout_keeps_the_mean_and_drops_its_share():
    for p in (0.1, 0.5):
        x = _dropped(p, positions=range(64))
        assert float((x == 0).float().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
        assert float(x.mean()) == pytest.approx(1, abs=0.02)
        assert set(x.unique().tolist()) <= {0.0, float(torch.tensor(1.0) / (1 - p))}


def test_dropout_uses_no_global_random_state():
    before = torch.get_rng_state()
    _dropped()
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_the_identity_in_eval_mode():
    dropout = PlannedDropout(0.5, 0, Dice()).eval()
    x = torch.ones(3, 4)
    assert dropout(x) is x


def test_dropout_that_does_not_know_its_rows_is_an_error():
    for positions in ((), (0,)):
        with pytest.raises(ValueError, match="positions"):
            PlannedDropout(0.5, 0, Dice(positions=positions))(torch.ones(3, 4))


def test_every_layer_is_dropped_by_plan_when_training_only(base, unet):
    injection = _trained(_inject(unet, dropout=0.5))
    calm = _predict(unet)  # injected into a model in eval mode: nothing is dropped
    assert torch.equal(_predict(unet), calm)
    unet.train()
    found = []
    for step, positions in ((0, (0, 1)), (0, (0, 1)), (0, (2, 3)), (1, (0, 1))):
        injection.dice.step, injection.dice.positions = step, positions
        found.append(_predict(unet))
    assert torch.equal(found[0], found[1])
    assert not any(torch.equal(found[0], other) for other in (calm, *found[2:]))
    layers = [m for m in unet.modules() if isinstance(m, PlannedDropout)]
    assert sorted(m.layer for m in layers) == list(range(len(injection.layers())))
    assert not any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in unet.modules())
