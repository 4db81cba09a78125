"""Each kind: nothing at the start, what peft computes afterwards, the same when it is added to the weights, and gone again."""

import copy

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from adapt.config import validate
from adapt.config.network import NetworkSettings
from adapt.errors import SettingsError
from adapt.formats import LoraWeights, Pair, read, write_lora, write_peft
from adapt.formats.layer import PEFT
from adapt.lora import Applied

TYPES = {"lora": {"rslora": True}, "dora": {}, "loha": {}, "lokr": {}}
MORE = {
    "plain lora": {"kind": "lora"},
    "rsdora": {"kind": "dora", "rslora": True},
    "lokr, whole factors": {"kind": "lokr", "rank": 16},
    "lokr, another factor": {"kind": "lokr", "lokr_factor": 4},
    "patterns": {"kind": "loha", "rank_pattern": {"to_q": 2, "conv_in": 1}, "alpha_pattern": {"to_q": 0.5}},
}


@pytest.fixture(params=list(TYPES))
def settings(request):
    return {"kind": request.param, **TYPES[request.param]}


@pytest.fixture(params=[*TYPES, *MORE])
def more_settings(request):
    return {"kind": request.param, **{**TYPES, **MORE}[request.param]}


def bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def layers_of(unet):
    return {name: layer for name, layer in unet.named_modules() if isinstance(layer, BaseTunerLayer)}


def with_component(layers):
    return {f"unet.{name}": layer for name, layer in layers.items()}


def by_hand(kind, targets, rank=3, alpha=7.0, rslora=False, lokr_factor=None, rank_pattern=None, alpha_pattern=None):
    """The configuration that a user of peft would write."""
    common = {"r": rank, "target_modules": list(targets), "rank_pattern": rank_pattern or {}}
    if kind in ("lora", "dora"):
        return LoraConfig(lora_alpha=alpha, use_rslora=rslora, use_dora=kind == "dora", **common)
    common |= {"alpha": alpha, "alpha_pattern": alpha_pattern or {}}
    return LoHaConfig(**common) if kind == "loha" else LoKrConfig(decompose_factor=lokr_factor or -1, **common)


def mine(name):
    return any(mark in name for mark in (".lora_", ".hada_", ".lokr_"))


# ------------------------------------------------------------------------------------------------------------- the start
def test_the_start_is_the_identity_and_only_the_adapter_is_trained(unet, predict, put, settings):
    before = predict(unet)
    injection = put(unet, **settings)
    assert torch.equal(predict(unet), before)
    assert {n for n, p in unet.named_parameters() if p.requires_grad} == set(injection.parameters)
    assert set(injection.places) == set(layers_of(unet)) and len(injection.places) > 9


def test_the_first_step_moves_what_starts_from_zero_and_the_lengths(unet, predict, put, settings):
    injection = put(unet, **settings)
    unet.train()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    unet(x, torch.tensor([10, 800]), encoder_hidden_states=torch.ones(2, 24, 16)).sample.square().mean().backward()
    moved = {name for name, p in injection.parameters.items() if p.grad is not None and p.grad.any()}
    zeros = {name for name, p in injection.parameters.items() if not p.any()}
    lengths = {name for name in injection.parameters if "magnitude" in name}
    assert zeros and moved == zeros | lengths
    assert len(zeros) == len(injection.places)


def test_the_start_depends_on_the_seed_and_the_name_alone(plain, put, settings):
    first, other = (put(copy.deepcopy(plain), seed=seed, **settings).parameters for seed in (3, 4))
    torch.manual_seed(99)
    again = put(copy.deepcopy(plain), seed=3, targets=("attn2.to_q", "conv_in", "attn2.to_k"), **settings).parameters
    shared = first.keys() & again.keys()
    assert len(shared) > 4 and all(torch.equal(first[name], again[name]) for name in shared)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# ------------------------------------------------------------------------------------------------------- the arithmetic
def test_what_is_trained_is_what_pefts_own_injection_computes(plain, predict, put, teach, more_settings):
    settings = more_settings
    unet, other = copy.deepcopy(plain), copy.deepcopy(plain)
    injection = put(unet, **settings)
    fresh = copy.deepcopy(unet)
    teach(injection)
    inject_adapter_in_model(by_hand(targets=injection.config.target_modules, **settings), other)
    state = {f"{n}.{p}": t for n, layer in injection.layers().items() for p, t in layer.named(PEFT).items()}
    ours, theirs = ({n for n, p in put_in.named_parameters() if mine(n) and not p.any()} for put_in in (fresh, other))
    assert ours == theirs != set()
    assert set_peft_model_state_dict(other, state).unexpected_keys == []
    assert (predict(unet) - predict(plain)).abs().max() > 0.05
    assert torch.equal(predict(unet), predict(other.eval()))


@torch.no_grad()
def test_delta_is_that_of_peft(unet, put, teach, more_settings):
    injection = teach(put(unet, **more_settings))
    for name, layer in injection.layers().items():
        theirs = layers_of(unet)[name].get_delta_weight("default")
        assert theirs.abs().max() > 1e-3
        assert torch.allclose(layer.delta(theirs.shape), theirs, atol=1e-5), name
        assert layer.fits(theirs.shape) and not layer.fits((theirs.shape[0] + 1, *theirs.shape[1:]))
        assert float(layer.norm()) == pytest.approx(float(theirs.norm()), rel=1e-5)


def test_applied_is_what_peft_draws_at_every_scale_and_leaves_no_trace(plain, predict, put, teach, settings):
    injection = teach(put(copy.deepcopy(plain), **settings))
    unet, layers = copy.deepcopy(plain), injection.layers()
    before = bits(unet)
    for scale in (1.0, 0.5, 0.0, -1.0):
        for layer in layers_of(injection.module).values():
            layer.set_scale("default", scale)
        with Applied({"unet": unet}, with_component(layers), scale):
            assert not same(bits(unet), before) or scale == 0
            assert (predict(unet) - predict(injection.module)).abs().max() <= 2e-5
        assert same(bits(unet), before)


# --------------------------------------------------------------------------------------------------------------- on disk
def test_a_file_gives_back_every_number(unet, put, teach, settings, tmp_path):
    weights = LoraWeights({"unet": teach(put(unet, **settings)).layers()})
    for folder in ("a", "b"):
        write_peft(tmp_path / folder, weights, {})
        write_lora(tmp_path / folder / "one.safetensors", weights, {})
    for name in ("adapter_model.safetensors", "adapter_config.json", "one.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read(tmp_path / "a" / "one.safetensors").equals(weights)
    assert read(tmp_path / "a" / "adapter_model.safetensors").equals(weights)


def test_peft_loads_the_folder_and_predicts_the_same(plain, predict, put, teach, more_settings, tmp_path):
    injection = teach(put(copy.deepcopy(plain), **more_settings))
    write_peft(tmp_path, LoraWeights({"unet": injection.layers()}), {"unet": injection.config.to_dict()})
    theirs = copy.deepcopy(plain)
    PeftModel.from_pretrained(theirs, str(tmp_path))
    assert set(layers_of(theirs)) == set(injection.places)
    assert (predict(theirs.eval()) - predict(injection.module)).abs().max() <= 1e-5


# --------------------------------------------------------------------------------------------------- taking it out again
def test_disabled_is_the_base_and_removal_leaves_no_trace(plain, unet, predict, put, teach, settings):
    injection = teach(put(unet, **settings, **({"dropout": 0.3, "module_dropout": 0.2})))
    adapted = predict(unet)
    with injection.disabled():
        assert torch.equal(predict(unet), predict(plain))
    assert torch.equal(predict(unet), adapted)
    injection.remove()
    assert [(n, type(m)) for n, m in unet.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    assert same(bits(unet), bits(plain)) and vars(unet).keys() == vars(plain).keys()


def test_in_a_half_model_the_adapter_is_fp32_and_starts_as_nothing(plain, predict, put, settings):
    unet = copy.deepcopy(plain).to(torch.bfloat16)
    before = predict(unet)
    injection = put(unet, **settings)
    assert {p.dtype for p in injection.parameters.values()} == {torch.float32}
    assert predict(unet).dtype == torch.bfloat16
    assert torch.equal(predict(unet), before)


def test_values_of_an_average_do_not_touch_the_parameters(unet, put, settings):
    injection = put(unet, **settings)
    before = {name: p.detach().clone() for name, p in injection.parameters.items()}
    ones = injection.layers({name: torch.ones_like(p) for name, p in before.items()})
    assert all(bool(t.eq(1).all()) for layer in ones.values() for t in layer.tensors().values())
    first = next(iter(injection.layers().values()))
    next(iter(first.tensors().values())).add_(1)
    assert all(torch.equal(p, before[name]) for name, p in injection.parameters.items())


def test_an_adapter_that_fails_midway_is_not_applied_at_all(plain, put, teach, monkeypatch):
    layers = with_component(teach(put(copy.deepcopy(plain))).layers())
    unet = copy.deepcopy(plain)
    before, merge_into, count = bits(unet), Pair.merge_into, []

    def fails_at_the_fifth(self, weight, scale, base=None):
        count.append(1)
        if len(count) == 5:
            raise MemoryError
        return merge_into(self, weight, scale, base)

    monkeypatch.setattr(Pair, "merge_into", fails_at_the_fifth)
    with pytest.raises(MemoryError):
        Applied({"unet": unet}, layers, 1.0)
    assert len(count) == 5 and same(bits(unet), before)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "loha", "rslora": True}, "rslora"),
        ({"kind": "lokr", "rslora": True}, "rslora"),
        ({"kind": "dora", "rank_dropout": 0.1}, "rank_dropout"),
        ({"kind": "loha", "lokr_factor": 4}, "lokr_factor"),
        ({"kind": "hra"}, "kind"),
    ],
    ids=str,
)
def test_what_a_kind_cannot_do_is_refused_with_the_reason(settings, reason):
    with pytest.raises(ValueError, match=reason):
        NetworkSettings(**settings)


def test_schedule_free_and_compile_do_not_go_with_everything():
    for clash in (
        {"optimizer": "schedulefree", "max_norm": 1.0},
        {"compile": True, "module_dropout": 0.1},
        {"init": "pissa", "precision": "bf16", "base_precision": "bf16"},
    ):
        with pytest.raises(SettingsError, match=next(reversed(clash))):
            validate(clash)
