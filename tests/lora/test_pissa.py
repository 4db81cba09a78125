"""PiSSA: the base in two parts that add up to it, and a plain LoRA of the original base afterwards."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from adapt.config.network import NetworkSettings
from adapt.errors import SettingsError
from adapt.formats import Pair
from adapt.lora import Applied


def bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(params=[{}, {"rslora": True}, {"rank": 20}], ids=["lora", "rslora", "more than the weights have"])
def injection(request, unet, put):
    return put(unet, init="pissa", **request.param)


def test_the_start_is_the_base_up_to_rounding(plain, unet, predict, injection):
    assert 0 < (predict(unet) - predict(plain)).abs().max() <= 2e-5
    assert all(float(layer.delta().norm()) <= 1e-4 for layer in injection.layers().values())


def test_on_linear_layers_it_is_pefts(plain, put):
    ours, theirs = copy.deepcopy(plain), copy.deepcopy(plain)
    targets = ("attn2.to_q", "time_emb_proj")
    put(ours, targets=targets, init="pissa")
    inject_adapter_in_model(
        LoraConfig(r=3, lora_alpha=7.0, target_modules=list(targets), init_lora_weights="pissa"), theirs
    )
    layers = {name: layer for name, layer in theirs.named_modules() if isinstance(layer, LoraLayer)}
    assert len(layers) > 8
    for name, layer in layers.items():
        mine = ours.get_submodule(name)
        assert torch.allclose(mine.get_delta_weight("default"), layer.get_delta_weight("default"), atol=1e-5)
        assert torch.allclose(mine.base_layer.weight, layer.base_layer.weight, atol=1e-5)


def test_a_and_b_hold_the_largest_singular_values_and_the_rest_the_others(plain, unet, put):
    injection = put(unet, init="pissa")
    for name, principal in injection.principal.items():
        weight = plain.get_submodule(name).weight.flatten(1)
        s = torch.linalg.svdvals(weight)
        held, rest = principal.start.delta().flatten(1), principal.rest.flatten(1)
        assert torch.allclose(torch.linalg.svdvals(held)[:3], s[:3], atol=1e-5)
        assert torch.allclose(torch.linalg.svdvals(rest)[: len(s) - 3], s[3:], atol=1e-5)


def test_where_a_weight_has_fewer_directions_the_surplus_starts_as_in_lora(unet, put):
    injection = put(unet, init="pissa", rank=20, targets=("conv_in", "to_q"))  # 16 × 36 and 16 × 16
    for name, parameter in injection.parameters.items():
        if ".lora_B." in name:
            assert parameter[:, :16].any() and not parameter[:, 16:].any()
        else:
            assert parameter[16:].any()


def test_what_was_trained_is_a_plain_lora_of_the_original_base(plain, unet, predict, teach, injection):
    teach(injection)
    trained, other = predict(unet), copy.deepcopy(plain)
    layers = injection.layers()
    assert (trained - predict(plain)).abs().max() > 0.05
    assert all(type(layer) is Pair and layer.rank == 2 * injection.places[name].rank for name, layer in layers.items())
    with Applied({"unet": other}, {f"unet.{name}": layer for name, layer in layers.items()}, 1.0):
        assert (predict(other) - trained).abs().max() <= 2e-5
    assert same(bits(other), bits(plain))


def test_disabled_is_the_original_base_bit_for_bit_also_nested(plain, unet, predict, teach, injection):
    teach(injection)
    adapted = predict(unet)
    with pytest.raises(KeyError), injection.disabled():
        assert torch.equal(predict(unet), predict(plain))
        with injection.disabled():
            assert torch.equal(predict(unet), predict(plain))
        assert torch.equal(predict(unet), predict(plain))
        raise KeyError
    assert torch.equal(predict(unet), adapted)


def test_removal_restores_every_bit(plain, unet, teach, injection):
    teach(injection).remove()
    assert same(bits(unet), bits(plain))
    assert [(n, type(m)) for n, m in unet.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]


def test_the_same_base_gives_the_same_start(plain, put):
    first, again = (put(copy.deepcopy(plain), init="pissa") for _ in range(2))
    torch.manual_seed(9)
    assert same(dict(first.parameters), dict(again.parameters))


def test_values_of_an_average_are_relative_to_the_original_too(unet, put):
    injection = put(unet, init="pissa")
    twice = {name: 2 * p.detach() for name, p in injection.parameters.items()}
    for name, layer in injection.layers(twice).items():
        assert torch.allclose(layer.delta(), 3 * injection.principal[name].start.delta(), atol=1e-4)  # 4 B A - B A


def test_half_precision_is_refused_and_nothing_stays_inside(plain, put):
    unet = copy.deepcopy(plain).half()
    before = bits(unet)
    with pytest.raises(SettingsError, match="base_precision"):
        put(unet, init="pissa")
    assert same(bits(unet), before)
    assert [n for n, _ in unet.named_modules()] == [n for n, _ in plain.named_modules()]


@pytest.mark.parametrize(
    "clash",
    [{"kind": "dora"}, {"kind": "lokr"}, {"init_from": "x"}, {"max_norm": 1.0}, {"dropout": 0.1}, {"rank_dropout": 0.1},
     {"module_dropout": 0.1}],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(clash):
    with pytest.raises(ValueError, match="pissa"):
        NetworkSettings(init="pissa", **clash)
