"""Skip-layer guidance is that of Stable Diffusion 3's pipeline, and what it leaves out is left out."""

import pytest
import torch
from tiny_families import CASES

from adapt.errors import SettingsError
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

STEPS = 8


def test_skipped_layers_draw_as_in_the_pipeline_of_stable_diffusion_3(backbones):
    backbone = backbones("stable-diffusion-3")
    pipeline, side = backbone.pipeline, backbone.resolution
    pipeline.set_progress_bar_config(disable=True)
    asked = {
        **CASES["stable-diffusion-3"].call,
        "prompt": "a red cat",
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "height": side,
        "width": side,
    }
    with torch.no_grad():
        expected = pipeline(
            **asked, generator=generator_of(0), output_type="latent", skip_guidance_layers=[0],
            skip_layer_guidance_scale=2.8, skip_layer_guidance_start=0.01, skip_layer_guidance_stop=0.7,
        ).images  # fmt: skip
        plain = pipeline(**asked, generator=generator_of(0), output_type="latent").images
        skipped = Request(
            prompt="a red cat", steps=STEPS, guidance_scale=4.0, guidance="slg:layers=0,scale=3.8,stop=0.7"
        )
        found = draw_latents(backbone, [settle(skipped, backbone)], [generator_of(0)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (plain - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("flux", "transformer_blocks"), ("chroma", "transformer_blocks"), ("flux2-klein", "transformer_blocks"),
     ("aura-flow", "joint_transformer_blocks"), ("cogvideox", "transformer_blocks"),
     ("hidream", "single_stream_blocks"), ("kandinsky5-image", "visual_transformer_blocks")],
)  # fmt: skip
@torch.no_grad()
def test_a_network_without_its_only_block_of_two_streams(backbones, name, blocks):
    """The block left out predicts what the network predicts without it; and it is there again afterwards."""
    backbone = backbones(name)
    x = torch.randn(1, *backbone.own_latents, generator=torch.Generator().manual_seed(0))
    t, condition, network = torch.tensor([500.0]), backbone.condition(["a cat"]), backbone.modules["transformer"]
    before = backbone.predict(x, t, condition)
    found = backbone.perturbed("slg", [f"{blocks}.0"])(x, t, condition)
    kept = getattr(network, blocks)
    setattr(network, blocks, torch.nn.ModuleList())
    try:
        without = backbone.predict(x, t, condition)
    finally:
        setattr(network, blocks, kept)
    assert torch.equal(found, without) and (found - before).abs().max() > 1e-4
    assert torch.equal(backbone.predict(x, t, condition), before)


@pytest.mark.parametrize("name", ["cogvideox", "hidream", "kandinsky5-image", "kandinsky22", "z-image"])
def test_attention_whose_inside_is_not_known_is_not_perturbed(backbones, name):
    with pytest.raises(SettingsError, match="no layers to work on"):
        backbones(name).perturbed("pag", ["0"])
