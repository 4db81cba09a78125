"""HiDream's sparse experts: diffusers' mixture, with its whole gradient; pictures that are no squares; what a base lacks."""

import copy

import pytest
import torch
from tiny_families import CASES, built

from adapt.backbones.hidream import HiDream, mixed
from adapt.errors import BackboneError, SettingsError


@pytest.fixture(scope="module")
def layer():
    from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU

    torch.manual_seed(0)
    layer = MOEFeedForwardSwiGLU(dim=8, hidden_dim=32, num_routed_experts=4, num_activated_experts=2).double().eval()
    return layer.requires_grad_(False)


def ours(layer):
    one = copy.deepcopy(layer)
    one.moe_infer = lambda *given: mixed(one, *given)
    return one


@pytest.fixture
def x():
    return torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_experts_are_mixed_as_diffusers_mixes_them_in_drawing_and_in_training(layer, x):
    expected, found = layer(x), ours(layer)(x)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    training = copy.deepcopy(layer).train()
    torch.testing.assert_close(found, training(x), atol=1e-12, rtol=0)
    assert torch.equal(ours(layer)(x), found)
    alone = torch.cat([ours(layer)(row) for row in x.split(1)])
    torch.testing.assert_close(alone, found, atol=1e-12, rtol=0)


def test_the_gradient_goes_through_the_experts(layer, x):
    """diffusers cuts it off in eval mode, in which adapters are trained: against differences, and against its train mode."""
    x = x[:1, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(ours(layer), (x,))
    (mine,) = torch.autograd.grad(ours(layer)(x).square().sum(), x)
    (trained,) = torch.autograd.grad(copy.deepcopy(layer).train()(x).square().sum(), x)
    (cut,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(mine, trained)
    assert (mine - cut).abs().max() > 1e-3


@torch.no_grad()
def test_a_picture_that_is_no_square_is_padded_alike_in_drawing_and_in_training(backbones):
    backbone = backbones("hidream")
    x, t = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(2)), torch.tensor([300.0, 700.0])
    condition = backbone.condition(CASES["hidream"].prompts[:2])
    drawn = backbone.predict(x, t, condition)
    backbone.denoiser.train()
    try:
        trained = backbone.predict(x, t, condition)
    finally:
        backbone.denoiser.eval()
    assert torch.equal(drawn, trained) and drawn.shape == x.shape
    backbone.require_size(64, 64)
    backbone.require_size(16, 64)
    with pytest.raises(SettingsError, match="no room"):
        backbone.require_size(34, 64)


def test_without_llama_it_says_what_is_missing():
    pipeline = built("hidream")
    pipeline.text_encoder_4 = None
    with pytest.raises(BackboneError, match=r"Llama 3\.1"):
        HiDream(pipeline, "tiny").condition(["a"])


def test_dev_and_fast_are_drawn_with_and_not_trained():
    import diffusers

    pipeline = built("hidream")
    assert HiDream(pipeline, "tiny").untrainable is None
    pipeline.scheduler = diffusers.FlowMatchLCMScheduler(shift=6.0)
    assert "distilled" in HiDream(pipeline, "tiny").untrainable.why
