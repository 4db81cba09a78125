"""Warm start: the same weights bit for bit, the nearest ones when asked, and a reason when they do not fit."""

import copy
from dataclasses import replace

import pytest
import torch

from adapt.errors import SettingsError
from adapt.formats import LoraWeights, read, write_kohya, write_lora, write_peft
from adapt.lora.warm_start import begin

KINDS = ["lora", "dora", "loha", "lokr"]


@pytest.fixture
def pair(plain, put, teach):
    """`pair(first settings, second settings)`: a trained injection, and another one that has not started yet."""

    def pair(first, second, **targets):
        return teach(put(copy.deepcopy(plain), **first)), put(copy.deepcopy(plain), seed=8, **{**targets, **second})

    return pair


@pytest.mark.parametrize("dialect", ["diffusers", "peft", "kohya"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_dialect_is_copied_bit_for_bit(pair, predict, tmp_path, kind, dialect):
    settings = {"kind": kind, "alpha": 3.0 if kind == "lokr" else 7.0}  # kohya's LoKr with whole factors knows no alpha
    trained, new = pair(settings, settings)
    weights = LoraWeights({"unet": trained.layers()})
    path = tmp_path / "adapter_model.safetensors"
    if dialect == "peft":
        write_peft(tmp_path, weights, {})
    elif dialect == "kohya":
        write_kohya(path, weights, width=768)
    else:
        write_lora(path, weights, {})
    start = begin(new, read(path).modules["unet"])
    assert all(torch.equal(p, new.parameters[name]) for name, p in trained.parameters.items())
    assert torch.equal(predict(new.module), predict(trained.module))
    assert (start.copied, start.refactored, start.new) == (len(trained.places), 0, 0)


def test_half_precision_files_are_copied_exactly(pair):
    trained, new = pair({}, {})
    half = {name: layer.to(torch.float16) for name, layer in trained.layers().items()}
    begin(new, half)
    assert all(layer.equals(half[name].to(torch.float32)) for name, layer in new.layers().items())
    assert {p.dtype for p in new.parameters.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"rank": 2}, {"rank": 3}, "of rank 2, not 3"),
        ({"alpha": 2.0}, {"alpha": 3.0}, "times B A"),
        ({"rslora": True}, {}, "times B A"),
        ({"kind": "loha"}, {}, "a loha, not a lora"),
        ({"kind": "dora"}, {}, "a dora, not a lora"),
        ({}, {"kind": "dora"}, "a lora, not a dora"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_and_nothing_is_changed(pair, first, second, reason):
    trained, new = pair(first, second)
    before = {name: p.detach().clone() for name, p in new.parameters.items()}
    with pytest.raises(SettingsError, match=reason) as refused:
        begin(new, trained.layers())
    assert "init_resize=true" in refused.value.next and f"kind={first.get('kind', 'lora')}" in refused.value.next
    assert all(torch.equal(p, before[name]) for name, p in new.parameters.items())


def test_layers_that_are_not_trained_are_refused_and_missing_ones_start_new(pair):
    trained, new = pair({}, {}, targets=("to_q", "to_k"))
    with pytest.raises(SettingsError, match="this run does not train") as refused:
        begin(new, trained.layers())
    assert "conv_in" in refused.value.next
    some = {name: layer for name, layer in trained.layers().items() if name.endswith("attn1.to_q")}
    start = begin(new, some)
    assert (start.copied, start.new) == (len(some), len(new.places) - len(some)) and "start new" in str(start)
    fresh = [layer for name, layer in new.layers().items() if name not in some]
    assert fresh and not any(layer.up.any() for layer in fresh)


# ----------------------------------------------------------------------------------------------------------- refactoring
def test_a_higher_rank_does_the_same_and_has_fresh_directions(pair, predict):
    trained, new = pair({"rank": 2, "alpha": 5.0}, {"rank": 6, "alpha": 3.0, "init_resize": True})
    fresh = {name: p.detach().clone() for name, p in new.parameters.items()}
    start = begin(new, trained.layers())
    assert start.refactored == len(trained.places) and start.lost < 1e-3
    assert (predict(new.module) - predict(trained.module)).abs().max() <= 1e-4
    for name, parameter in new.parameters.items():
        if ".lora_A." in name:
            assert torch.equal(parameter[2:], fresh[name][2:]) and not torch.equal(parameter[:2], fresh[name][:2])
        else:
            assert parameter[:, :2].any() and not parameter[:, 2:].any()


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_lower_rank_is_the_nearest_and_says_what_it_leaves_out(pair, kind):
    trained, new = pair({"kind": kind, "rank": 4}, {"rank": 1, "alpha": 2.0, "init_resize": True})
    start = begin(new, trained.layers())
    lost, whole = 0.0, 0.0
    for name, layer in new.layers().items():
        delta = trained.layers()[name].delta(layer.shape)
        s = torch.linalg.svdvals(delta.flatten(1))
        assert float((delta - layer.delta()).norm()) == pytest.approx(float(s[1:].norm()), rel=1e-3), name
        lost, whole = lost + float(s[1:].square().sum()), whole + float(s.square().sum())
    assert start.lost == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert f"{100 * start.lost:.2g} %" in str(start)


def test_dora_keeps_its_lengths_and_the_nearest_direction(pair, predict):
    trained, new = pair({"kind": "dora", "rank": 2}, {"kind": "dora", "rank": 4, "init_resize": True})
    begin(new, trained.layers())
    assert (predict(new.module) - predict(trained.module)).abs().max() <= 1e-4
    for name, layer in new.layers().items():
        assert torch.equal(layer.magnitude, trained.layers()[name].magnitude)


def test_what_fits_already_is_copied_even_when_resizing_is_allowed(pair):
    trained, new = pair({}, {"init_resize": True})
    assert begin(new, trained.layers()).refactored == 0
    assert all(torch.equal(p, new.parameters[name]) for name, p in trained.parameters.items())


@pytest.mark.parametrize(("first", "second"), [("dora", "lora"), ("lora", "dora"), ("lora", "loha"), ("loha", "lokr")])
def test_kinds_without_a_nearest_one_are_refused_also_when_asked(pair, first, second):
    trained, new = pair({"kind": first}, {"kind": second, "init_resize": True})
    with pytest.raises(SettingsError, match="init_resize makes LoRA of anything but DoRA"):
        begin(new, trained.layers())


def test_factors_cut_in_another_way_are_refused_by_shape(pair):
    trained, new = pair({"kind": "lokr"}, {"kind": "lokr", "lokr_factor": 2})
    with pytest.raises(SettingsError, match="does not fit this run"):
        begin(new, trained.layers())


def test_an_adapter_of_nothing_is_refactored_to_nothing(pair):
    trained, new = pair({"rank": 2}, {"rank": 3, "init_resize": True})
    zero = {name: replace(layer, up=torch.zeros_like(layer.up)) for name, layer in trained.layers().items()}
    assert begin(new, zero).lost == 0
    assert all(not layer.up.any() for layer in new.layers().values())
