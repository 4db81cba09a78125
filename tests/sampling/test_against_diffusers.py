"""The loop equals diffusers' pipelines: same seed, same steps, guidance on and off, to 1e-4 in latents."""

import diffusers
import pytest
import torch

from adapt.sampling.draw import draw, draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle

TOLERANCE = 1e-4
NAMED = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
OTHERS = {
    "pndm": "PNDMScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddpm": "DDPMScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "deis": "DEISMultistepScheduler",
    "lms": "LMSDiscreteScheduler",
}


def theirs(backbone, pipeline_class, scheduler, **settings):
    """What the plain pipeline draws, with a scheduler made from the pipeline's own."""
    parts = dict(backbone.pipeline.components)
    own = parts["scheduler"]
    kind = getattr(diffusers, scheduler or type(own).__name__)
    # Stable Diffusion's own files have PNDM without its Runge-Kutta steps; a DDIM configuration does not say it.
    options = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    parts["scheduler"] = kind.from_config(own.config, **options)
    pipeline = getattr(diffusers, pipeline_class)(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"output_type": "latent", "generator": generator_of(7), **settings}
    return pipeline(num_inference_steps=settings.pop("steps"), **settings).images


def ours(backbone, scheduler, **settings):
    drawing = settle(Request(seed=7, scheduler=scheduler, **settings), backbone)
    return draw_latents(backbone, [drawing], [generator_of(7)])


def assert_close(a, b):
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    assert (a - b).abs().max() <= TOLERANCE


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("scheduler", NAMED)
def test_icons_text_to_image_equals_the_pipeline(icons, scheduler, guidance_scale):
    settings = {"prompt": "a red apple", "negative_prompt": "grey", "steps": 5, "guidance_scale": guidance_scale}
    expected = theirs(icons, "StableDiffusionPipeline", NAMED[scheduler], **settings)
    assert_close(ours(icons, scheduler, **settings), expected)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("scheduler", NAMED)
def test_icons_image_to_image_equals_the_pipeline(icons, picture, scheduler, guidance_scale):
    settings = {
        "prompt": "a house",
        "steps": 6,
        "guidance_scale": guidance_scale,
        "image": picture(64, 64),
        "strength": 0.7,
    }
    expected = theirs(icons, "StableDiffusionImg2ImgPipeline", NAMED[scheduler], **settings)
    assert_close(ours(icons, scheduler, **settings), expected)


@pytest.mark.parametrize(("kind", "guidance_scale"), [("epsilon", 1.0), ("epsilon", 6.0), ("v_prediction", 6.0)])
@pytest.mark.parametrize("scheduler", {**NAMED, **OTHERS})
def test_tiny_text_to_image_equals_the_pipeline(tiny, scheduler, guidance_scale, kind):
    settings = {"prompt": "a dog", "steps": 5, "guidance_scale": guidance_scale}
    expected = theirs(tiny(kind), "StableDiffusionPipeline", {**NAMED, **OTHERS}[scheduler], **settings)
    assert_close(ours(tiny(kind), scheduler, **settings), expected)


@pytest.mark.parametrize(("kind", "strength"), [("epsilon", 0.5), ("v_prediction", 1.0)])
@pytest.mark.parametrize("scheduler", {**NAMED, **OTHERS})
def test_tiny_image_to_image_equals_the_pipeline(tiny, picture, scheduler, strength, kind):
    settings = {"prompt": "a dog", "steps": 6, "guidance_scale": 3.0, "image": picture(16, 24), "strength": strength}
    expected = theirs(tiny(kind), "StableDiffusionImg2ImgPipeline", {**NAMED, **OTHERS}[scheduler], **settings)
    assert_close(ours(tiny(kind), scheduler, **settings, height=16, width=24), expected)


@pytest.mark.parametrize(
    ("kind", "guidance_scale", "strength"), [("epsilon", 1.0, 0.6), ("epsilon", 4.0, 1.0), ("v_prediction", 4.0, 0.6)]
)
@pytest.mark.parametrize("scheduler", {**NAMED, "pndm": "PNDMScheduler", "heun": "HeunDiscreteScheduler"})
def test_tiny_inpainting_equals_the_pipeline(tiny, picture, mask, scheduler, guidance_scale, strength, kind):
    names = {**NAMED, **OTHERS}
    settings = {
        "prompt": "a cat",
        "steps": 5,
        "guidance_scale": guidance_scale,
        "image": picture(16, 16),
        "strength": strength,
    }
    hole = mask(16, 16)
    expected = theirs(tiny(kind), "StableDiffusionInpaintPipeline", names[scheduler], mask_image=hole, **settings)
    assert_close(ours(tiny(kind), scheduler, mask=hole, **settings), expected)


def test_guidance_rescale_equals_the_pipeline(tiny):
    settings = {"prompt": "a dog", "steps": 4, "guidance_scale": 6.0, "guidance_rescale": 0.7}
    expected = theirs(tiny("v_prediction"), "StableDiffusionPipeline", None, **settings)
    assert_close(ours(tiny("v_prediction"), None, **settings), expected)


def test_the_8_bit_picture_equals_the_pipelines(icons):
    settings = {"prompt": "a red apple", "steps": 5, "guidance_scale": 3.0}
    expected = theirs(icons, "StableDiffusionPipeline", None, output_type="pil", **settings)[0]
    (picture,) = draw(icons, [settle(Request(seed=7, **settings), icons)])
    difference = torch.tensor(list(picture.tobytes())) - torch.tensor(list(expected.tobytes()))
    assert picture.size == expected.size == (64, 64)
    assert difference.abs().max() <= 1


def test_the_pipelines_own_scheduler_is_never_touched(tiny):
    backbone = tiny("epsilon")
    scheduler = backbone.pipeline.scheduler
    before = (dict(scheduler.config), scheduler.timesteps.clone(), scheduler.num_inference_steps)
    for name in (None, "ddim", "dpm++2m"):
        ours(backbone, name, prompt="a dog", steps=3)
    assert backbone.pipeline.scheduler is scheduler
    assert (dict(scheduler.config), scheduler.num_inference_steps) == (before[0], before[2])
    assert torch.equal(scheduler.timesteps, before[1])


def test_from_pure_noise_as_the_rescaled_pipeline_draws(tiny):
    """What the card's snippet makes of the pipeline's own scheduler."""
    backbone = tiny("v_prediction")
    parts = dict(backbone.pipeline.components)
    own = parts["scheduler"]
    parts["scheduler"] = type(own).from_config(own.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "latent", "height": 16, "width": 16}
    expected = pipeline("a fox", generator=generator_of(7), **options).images
    request = Request(prompt="a fox", seed=7, steps=5, guidance_scale=3.0)
    found = (
        draw_latents(backbone, [settle(request, backbone, advice)], [generator_of(7)])
        for advice in ({"zero_terminal_snr": True}, {})
    )
    rescaled, plain = found
    assert_close(rescaled, expected)
    assert (plain - expected).abs().max() > 0.01
