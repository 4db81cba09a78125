"""Several adapters on one model: whatever comes off, and in whatever order, what is left is what it would be without it."""

import itertools

import pytest
import torch

from adapt.errors import AdapterError
from adapt.formats import Dora, LoHa, Pair, lora_weights
from adapt.lora import Applied
from adapt.lora.stack import STACK

NAMES = ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in")


def layers_of(unet, seed):
    """LoRA, LoHa and DoRA: kinds that add and one that turns what it finds."""
    dice = torch.Generator().manual_seed(seed)
    found = {}
    for name in NAMES:
        out, *inside = unet.get_submodule(name).weight.shape
        ones = [1] * (len(inside) - 1)
        down, up = torch.randn(2, *inside, generator=dice), torch.randn(out, 2, *ones, generator=dice)
        found[f"unet.{name}"] = Pair(down, up, 1.5)
    if seed == 1:
        first = found[f"unet.{NAMES[0]}"]
        found[f"unet.{NAMES[0]}"] = Dora(first.down, first.up, 1.5, torch.rand(len(first.up), 1, generator=dice) + 0.5)
    if seed == 2:
        out, inside = unet.get_submodule(NAMES[0]).weight.shape
        halves = [torch.randn(*s, generator=dice) for s in ((out, 2), (2, inside), (out, 2), (2, inside))]
        found[f"unet.{NAMES[0]}"] = LoHa(*halves, 1.0)
    return found


def bits(unet):
    return {name: tensor.clone() for name, tensor in unet.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_three_come_off_in_any_order(unet, plain, order):
    before, scales = bits(plain), (1.0, 0.5, -0.3)
    handles = {k: Applied({"unet": unet}, layers_of(unet, k), scales[k]) for k in range(3)}
    for taken in order:
        handles.pop(taken).unload()
        left = bits(unet)
        for handle in reversed([*handles.values()]):
            handle.unload()
        assert same(bits(unet), before) and not hasattr(unet.conv_in.weight, STACK)
        handles = {k: Applied({"unet": unet}, layers_of(unet, k), scales[k]) for k in sorted(handles)}
        assert same(bits(unet), left)
    assert same(bits(unet), before)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_order_means_nothing_and_each_does_what_it_does_to_the_base(unet, plain, order):
    scales, base = (1.0, 0.5, -0.3), {name: plain.get_submodule(name).weight for name in NAMES}
    wanted = {name: weight.clone() for name, weight in base.items()}
    for k, scale in enumerate(scales):
        for name, weight in base.items():
            wanted[name] += layers_of(unet, k)[f"unet.{name}"].merged(weight, scale) - weight
    for k in order:
        Applied({"unet": unet}, layers_of(unet, k), scales[k])
    for name in NAMES:
        assert (unet.get_submodule(name).weight - wanted[name]).abs().max() <= 1e-5


@pytest.mark.parametrize("below", [0, 1])
def test_another_scale_or_adapter_in_its_place_is_bit_for_bit_a_new_one(unet, below):
    before = bits(unet)
    with Applied({"unet": unet}, layers_of(unet, below), 1.0):
        with Applied({"unet": unet}, layers_of(unet, 2), 0.7), Applied({"unet": unet}, layers_of(unet, 0), 0.2):
            wanted = bits(unet)
        fewer = {name: layer for name, layer in layers_of(unet, 1).items() if "conv" not in name}
        with Applied({"unet": unet}, fewer, 0.1) as on, Applied({"unet": unet}, layers_of(unet, 0), 0.2):
            on.rescale(-3.0)
            on.change(layers_of(unet, 2), 2.0)
            on.rescale(0.7)
            assert torch.equal(unet.get_submodule(NAMES[0]).weight, wanted[f"{NAMES[0]}.weight"])
            assert torch.allclose(
                unet.conv_in.weight, wanted["conv_in.weight"], atol=1e-6
            )  # there it is the highest now
            on.change(fewer, 1.0)
            assert len(getattr(unet.conv_in.weight, STACK).layers) == 2
    assert same(bits(unet), before) and not hasattr(unet.conv_in.weight, STACK)


def test_a_change_that_does_not_fit_leaves_what_was_on_and_one_that_overflows_leaves_the_base(unet):
    before = bits(unet)
    with Applied({"unet": unet}, layers_of(unet, 0), 1.0) as on:
        there = bits(unet)
        wrong = {f"unet.{NAMES[0]}": Pair(torch.ones(2, 3), torch.ones(5, 2), 1.0)}
        for change in (lambda: on.change(wrong, 1.0), lambda: on.rescale(float("nan"))):
            with pytest.raises(AdapterError):
                change()
            assert same(bits(unet), there)
    assert same(bits(unet), before)
    half = unet.half()
    before = bits(half)
    on = Applied({"unet": half}, layers_of(half, 0), 1.0)
    with pytest.raises(AdapterError, match="float16"):
        on.rescale(1e6)
    assert same(bits(half), before) and not hasattr(half.conv_in.weight, STACK)


def test_one_copy_is_kept_however_many_are_applied(unet):
    handles = [Applied({"unet": unet}, layers_of(unet, k), 1.0) for k in range(3)]
    stack = getattr(unet.conv_in.weight, STACK)
    assert len(stack.layers) == 3 and stack.base.shape == unet.conv_in.weight.shape
    handles[1].unload()
    handles[1].unload()
    assert len(stack.layers) == 2


def test_one_that_is_kept_stays_while_others_come_and_go(unet):
    below = Applied({"unet": unet}, layers_of(unet, 0), 1.0)
    kept = Applied({"unet": unet}, layers_of(unet, 2), 1.0)
    kept.keep()
    kept.unload()
    below.unload()
    after = bits(unet)
    assert not hasattr(unet.conv_in.weight, STACK)
    with Applied({"unet": unet}, layers_of(unet, 0), 1.0):
        assert not same(bits(unet), after)
    assert same(bits(unet), after)


def test_scales_that_are_not_finite_and_overflow_leave_the_base_as_it_was(unet):
    before = bits(unet)
    for scale in (float("nan"), float("inf")):
        with pytest.raises(AdapterError, match="not finite"):
            Applied({"unet": unet}, layers_of(unet, 0), scale)
    assert same(bits(unet), before)
    half = unet.half()
    before = bits(half)
    huge = {name: Pair(layer.down * 1e3, layer.up * 1e3, 2.0) for name, layer in layers_of(unet, 0).items()}
    with pytest.raises(AdapterError, match="float16"):
        Applied({"unet": half}, huge, 1.0)
    assert same(bits(half), before) and not hasattr(half.conv_in.weight, STACK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("piece", [1, 11, 1 << 19], ids=["a row at a time", "two rows", "whole"])
def test_in_place_is_the_formula_in_pieces_and_whole(dtype, piece, monkeypatch):
    """Also onto another tensor than that which is added to, whose numbers do not matter then."""
    monkeypatch.setattr(lora_weights, "PIECE", piece)
    dice = torch.Generator().manual_seed(0)
    for shape, ones in (((7, 5), ()), ((7, 5, 3, 3), (1, 1))):
        layer = Pair(torch.randn(2, *shape[1:], generator=dice), torch.randn(7, 2, *ones, generator=dice), 3.0)
        base = torch.randn(shape, generator=dice).to(dtype)
        wanted = layer.merged(base, 0.7).to(dtype)
        weight, other = base.clone(), torch.full_like(base, torch.nan)
        layer.merge_into(weight, 0.7)
        layer.merge_into(other, 0.7, base)
        steps = (
            0.0 if dtype in (torch.bfloat16, torch.float16) else 1e-6
        )  # half a step of theirs is far above fp32's rounding
        assert torch.allclose(weight.float(), wanted.float(), rtol=0, atol=steps)
        assert torch.equal(other, weight)
