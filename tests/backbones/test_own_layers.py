"""Layers of classes' own: ΔW for their rows, nothing to the bit for all others, the same gradient through checkpointed blocks."""

import pytest
import torch

from adapt.backbones import Backbone
from adapt.backbones.own_layers import changeable, put_on
from conditioning import ClassConditioner


@pytest.fixture(scope="module")
def base(tiny_base):
    return Backbone.load(str(tiny_base))


def linear_and_convolution(base):
    """The last linear layer of the attentions, and the first convolution inside a block."""
    named = {name: layer for name, layer in base.denoiser.named_modules() if changeable(layer)}
    return [
        [name for name in named if name.endswith("to_out.0")][-1],
        next(name for name in named if name.endswith("conv1")),
    ]


def own_of(base, number, names, seed=0):
    lot, found = torch.Generator().manual_seed(seed), {}
    for name in names:
        weight = base.denoiser.get_submodule(name).weight
        found[f"{number}.{name}.down"] = 0.1 * torch.randn(2, *weight.shape[1:], generator=lot)
        found[f"{number}.{name}.up"] = 0.1 * torch.randn(len(weight), 2, generator=lot)
    return found


def grown(base, own):
    """Three classes that say the same, so that layers alone make a difference."""
    return ClassConditioner.new(["finch"], torch.zeros(2, 16)).grown(["owl", "robin"], own=own)


def predicted(base, classes, raw, **changes):
    """The same latents in every row."""
    x = torch.randn(1, *base.own_latents, generator=torch.Generator().manual_seed(1)).expand(len(raw), -1, -1, -1)
    condition = base.condition([""] * len(raw)).replaced({"class": classes.encode(raw)})
    return base.predict(x, torch.full((len(raw),), 500), condition)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_rows_of_a_class_have_its_change_and_the_others_not_a_bit_of_it(base, scale):
    names = linear_and_convolution(base)
    classes = grown(base, own_of(base, 0, names))
    raw = ["owl", "finch", "", {"owl": 0.5, "finch": 0.5}, "robin"]
    with torch.no_grad():
        plain = predicted(base, classes, raw)
        off = put_on(base, classes, scale)
        changed = predicted(base, classes, raw)
        off()
        for i in (1, 2, 4):
            assert torch.equal(changed[i], plain[i])
        for row, share in ((0, 1.0), (3, 0.5)):
            assert (changed[row] - plain[row]).abs().max() > 1e-4
            assert torch.allclose(changed[row], merged(base, classes, names, raw, scale * share)[row], atol=1e-5)
        assert torch.equal(predicted(base, classes, raw), plain)


def merged(base, classes, names, raw, factor):
    """Predictions with the change in the weights."""
    kept = {name: base.denoiser.get_submodule(name).weight.clone() for name in names}
    for name, ((_, down, up),) in classes.own_layers.by_layer().items():
        weight = base.denoiser.get_submodule(name).weight
        weight += factor * (up @ down.flatten(1)).view(weight.shape)
    found = predicted(base, classes, raw)
    for name, weight in kept.items():
        base.denoiser.get_submodule(name).weight.copy_(weight)
    return found


def test_gradients_are_the_same_through_checkpointed_blocks(base):
    gradients = []
    for checkpointed in (False, True):
        classes = grown(base, own_of(base, 0, linear_and_convolution(base)))
        learned = [x for name, x in sorted(classes.learned.items()) if name.startswith("own.")]
        for x in learned:
            x.requires_grad_(True)
        off = put_on(base, classes)
        if checkpointed:
            base.denoiser.train().enable_gradient_checkpointing()
        try:
            predicted(base, classes, ["finch", "owl"]).square().sum().backward()
        finally:
            base.denoiser.eval().disable_gradient_checkpointing()
            off()
        gradients.append([x.grad for x in learned])
    for plain, again in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        assert torch.allclose(plain, again, rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in base.denoiser.parameters())


@pytest.mark.parametrize("name", ["no.such.layer", "conv_in"])
def test_another_base_is_refused_before_a_layer_changes(base, name):
    own = {
        **own_of(base, 0, linear_and_convolution(base)),
        f"0.{name}.down": torch.ones(2, 5),
        f"0.{name}.up": torch.ones(4, 2),
    }
    with pytest.raises(ValueError, match=name):
        put_on(base, grown(base, own))
    assert not any(layer._forward_hooks for layer in base.denoiser.modules())
