"""Variants of video bases with something of their own: times of tokens (Wan 2.2 5B), a decoder with a time (LTX-Video 0.9.1)."""

import pytest
import torch
from test_contract import noise
from tiny_families import CASES

from adapt.cli.main import main
from adapt.loading import medium_of

SETTINGS = ["steps=1", "batch_size=2", "rank=2", "validation=0.25", "validation_times=1", "sampling_steps=2", "frames=1",
            "fps=8", "preview_every=9"]  # fmt: skip
variants = pytest.mark.parametrize("name", ["wan-2.2-5b", "ltx-video-0.9.1"])


@variants
def test_the_medium_is_known_from_the_configuration_alone(folders, backbones, name):
    assert medium_of(folders(name)) == backbones(name).medium and backbones(name).untrainable is None


@torch.no_grad()
def test_every_token_of_wan_has_a_time(backbones):
    backbone = backbones("wan-2.2-5b")
    seen = []
    hook = backbone.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True
    )
    x_t, t = noise(backbone, 2), torch.tensor([700.0, 20.0])
    found = backbone.predict(x_t, t, backbone.condition(["a", "b"]))
    hook.remove()
    frames, height, width = x_t.shape[2:]
    assert seen[0].shape == (2, frames * height * width // 4) and seen[0].unique(dim=1).tolist() == [[700.0], [20.0]]
    alone = backbone.predict(x_t[1:], t[1:], backbone.condition(["b"]))
    torch.testing.assert_close(found[1:], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_decoder_of_ltx_is_told_its_pipelines_time_and_draws_the_same_every_time(backbones):
    backbone = backbones("ltx-video-0.9.1")
    pipeline, x = backbone.pipeline, noise(backbone, 2)
    generator = torch.get_rng_state()
    found = backbone.decode(x)
    assert torch.equal(torch.get_rng_state(), generator) and torch.equal(found, backbone.decode(x))
    torch.testing.assert_close(backbone.decode(x[1:]), found[1:], atol=1e-5, rtol=0)  # a clip alone is as in a batch
    given = pipeline._denormalize_latents(x, pipeline.vae.latents_mean, pipeline.vae.latents_std)
    torch.manual_seed(0)
    torch.testing.assert_close(pipeline.vae.decode(given, torch.zeros(2), return_dict=False)[0], found)
    torch.manual_seed(1)
    other = pipeline.vae.decode(given, torch.full((2,), 0.5), return_dict=False)[0]
    assert (other - found).abs().max() > 1e-4  # time and noise matter, or this would prove nothing


@variants
def test_what_is_learned_is_drawn_with(folders, name, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = str(folders(name))
    assert main(["train", str(clips), "--base", base, "--output", "runs/a", *SETTINGS]) == 0
    asked = ["generate", "--prompt", "a", "--steps", "2", "--base", base, "--device", "cpu", "--adapter", "runs/a"]
    assert main([*asked, "--frames", str(CASES[name].frames), "--output", "a.gif"]) == 0
