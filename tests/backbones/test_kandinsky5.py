"""Kandinsky 5 tells a row its own tokens; positions of clips are drawn together by size; sparse attention is not trained."""

import torch
from tiny_families import built

from adapt.backbones.kandinsky5 import Kandinsky5


def test_a_row_is_told_its_own_tokens_and_no_padding(backbones):
    backbone, lengths = backbones("kandinsky5-image"), []
    hook = backbone.denoiser.register_forward_pre_hook(
        lambda module, given, named: lengths.append(tuple(named["encoder_hidden_states"].shape[:2])), with_kwargs=True
    )
    x, t = torch.randn(2, *backbone.own_latents, generator=torch.Generator().manual_seed(0)), torch.tensor([300.0, 700])
    try:
        with torch.no_grad():
            backbone.predict(x, t, backbone.condition(["a cat", "a"]))
            backbone.predict(x, t, backbone.condition(["a cat", "a dog"]))
    finally:
        hook.remove()
    (one, first), (other, second), (both, equal) = lengths
    assert (one, other, both) == (1, 1, 2) and first == equal == second + len(" cat")


def test_positions_are_drawn_together_by_the_size_of_the_clip(backbones):
    """As its pipeline has it."""
    backbone = backbones("kandinsky5")
    for height, width in ((480, 480), (512, 768), (480, 856), (768, 1024), (16, 16)):
        theirs = backbone.pipeline._get_scale_factor(height, width)
        assert backbone._spread(height // backbone.scale_factor, width // backbone.scale_factor) == theirs


def test_sparse_attention_is_not_trained():
    backbone = Kandinsky5(built("kandinsky5"), "tiny")
    assert backbone.untrainable is None
    backbone.denoiser.register_to_config(attention_type="nabla")
    assert "sparse attention" in backbone.untrainable.why
