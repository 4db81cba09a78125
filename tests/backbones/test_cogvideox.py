"""The other two CogVideoX: the small one with a table of positions, and 1.5, which joins two latents in time."""

import diffusers
import pytest
import torch
from tiny_families import CASES, cogvideox

from adapt.backbones.cogvideox import CogVideoX
from adapt.errors import SettingsError
from adapt.loading import medium_of
from adapt.sampling import schedulers
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle
from conditioning import Condition

CASE = CASES["cogvideox"]


@pytest.fixture(params=[(False, None, "CogVideoXDDIMScheduler"), (True, 2, "CogVideoXDPMScheduler")], ids=["2b", "1.5"])
def other(request):
    torch.manual_seed(0)
    pipeline = cogvideox(*request.param)
    pipeline.set_progress_bar_config(disable=True)
    return CogVideoX(pipeline, "tiny")


@pytest.mark.parametrize("frames", [1, 9])
def test_it_draws_as_the_pipeline_does(other, frames):
    call = {"num_frames": frames, "height": 16, "width": 16, "max_sequence_length": 24, "num_inference_steps": 3}
    generators = [generator_of(7), generator_of(8)]
    theirs = other.pipeline(
        list(CASE.prompts[:2]), guidance_scale=4.0, output_type="latent", generator=generators, **call
    ).frames.transpose(1, 2)
    asked = {"steps": 3, "height": 16, "width": 16, "guidance_scale": 4.0, "frames": frames}
    drawings = [settle(Request(prompt=prompt, **asked), other) for prompt in CASE.prompts[:2]]
    ours = draw_latents(other, drawings, [generator_of(7), generator_of(8)])
    assert (ours - theirs).abs().max() <= 1e-4


@torch.no_grad()
def test_a_clip_is_encoded_as_many_latents_as_are_drawn_and_comes_back_as_long(other):
    for frames in (1, 9, 17):
        pixels = torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(frames)) * 2 - 1
        mean, std = other.encode_media(pixels)
        assert mean.shape == std.shape == (1, *other.latent_shape(frames, 16, 16))
        assert mean.shape[2] % other.joined == 0
        assert torch.equal(other.decode(mean), other.pipeline.vae.decode(mean[:, :, other.joined - 1 :] / 0.7).sample)
        assert other.decode(mean).shape == pixels.shape
        assert other.predict(mean, torch.tensor([500]), other.condition(["a"])).shape == mean.shape


@torch.no_grad()
def test_other_tokens_have_a_place_behind_the_captions(other):
    condition, x = other.condition(["a"]), torch.zeros(1, *other.own_latents)
    extra = torch.ones(1, 2, 16)
    more = Condition({**condition.parts, "class": {"tokens": extra}}, condition.facts)
    t = torch.tensor([500])
    assert (other.predict(x, t, more) - other.predict(x, t, condition)).abs().max() > 1e-6


def test_one_and_a_half_makes_more_frames(other, tmp_path):
    medium = other.medium
    assert (medium.frames, medium.fps) == ((9, 8.0) if other.joined == 1 else (81, 16.0))
    other.pipeline.save_pretrained(tmp_path)
    assert medium_of(tmp_path) == medium


def test_sizes_beyond_the_positions_are_refused(other):
    if other.joined == 1:
        other.require_size(32, 32)
        return
    with pytest.raises(SettingsError, match="16x16"):
        other.require_size(16, 32)


@pytest.mark.parametrize("name", ["ddim", "dpm++2m", "euler"])
def test_other_schedulers_know_its_noise_levels(other, name):
    """CogVideoX moves its signal-to-noise ratio, which no other scheduler does by itself."""
    config = other.scheduler_config
    own = getattr(diffusers, config["_class_name"]).from_config(config).alphas_cumprod
    found = schedulers.build(name, config).alphas_cumprod
    torch.testing.assert_close(found.double()[:-1], own.double()[:-1], atol=1e-5, rtol=0)
    assert found[-1] < 1e-6
    torch.testing.assert_close(other.objective().alphas_cumprod.double(), own.double(), atol=1e-6, rtol=0)
