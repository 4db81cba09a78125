"""Guidances by name: what is read, what a drawing becomes with them, and what is refused."""

import pytest
import torch
from diffusers import StableDiffusionPAGPipeline

from adapt.errors import SettingsError
from adapt.sampling.draw import draw_latents
from adapt.sampling.guidances import KINDS, read, read_all
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle


def latents(backbone, **settings):
    drawing = settle(Request(seed=7, prompt="a fox", steps=4, **settings), backbone)
    return draw_latents(backbone, [drawing], [generator_of(7)])


def test_what_is_said_is_what_is_told():
    assert str(read("apg:eta=0.5,stop=0.8")) == "apg:eta=0.5,stop=0.8"
    assert read("apg")["momentum"] == -0.5 and read("auto:weak=0.5").name == "autoguidance"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("apgg", "did you mean apg"),
        ("apg:etta=1", "did you mean eta"),
        ("apg:eta=much", "eta is out of range"),
        ("apg:eta=nan", "eta is out of range"),
        ("apg:eta", "key=value"),
        ("apg:scale=3", "--guidance-scale"),
        ("cfg:start=0.8,stop=0.2", "start must be before stop"),
        ("cfg:schedule=sawtooth", "schedule is out of range"),
        ("autoguidance", "needs weak"),
        ("slg", "needs layers"),
        ("", "guidance"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(text, reason):
    with pytest.raises(SettingsError) as refused:
        read(text)
    assert reason in str(refused.value)


def test_two_classifier_free_ones_or_one_twice_are_refused():
    with pytest.raises(SettingsError, match="only one classifier-free"):
        read_all(["apg", "cfg"])
    with pytest.raises(SettingsError, match="twice"):
        read_all(["pag", "pag:scale=2"])


@pytest.mark.parametrize("name", ["apg:eta=1,momentum=0", "cfg"])
def test_classifier_free_by_name_is_the_default(tiny, name):
    base = tiny("epsilon")
    plain = latents(base, guidance_scale=4.0)
    assert torch.allclose(latents(base, guidance_scale=4.0, guidance=name), plain, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.classifier_free])
def test_scale_one_is_unguided_to_the_bit(tiny, name):
    base = tiny("epsilon")
    assert torch.equal(latents(base, guidance_scale=1.0, guidance=name), latents(base, guidance_scale=1.0))


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_perturbed_attention_is_that_of_diffusers(tiny, guidance_scale):
    base = tiny("epsilon")
    pipeline = StableDiffusionPAGPipeline(
        **base.pipeline.components, requires_safety_checker=False, pag_applied_layers=["mid"]
    )
    pipeline.set_progress_bar_config(disable=True)
    processors = dict(base.denoiser.attn_processors)
    theirs = pipeline("a fox", num_inference_steps=4, guidance_scale=guidance_scale, pag_scale=3.0,
                      generator=generator_of(7), output_type="latent").images  # fmt: skip
    base.denoiser.set_attn_processor(processors)
    ours = latents(base, guidance_scale=guidance_scale, guidance="pag:scale=4,layers=mid")
    assert (ours - theirs).abs().max() <= 1e-4
    assert not torch.allclose(ours, latents(base, guidance_scale=guidance_scale), atol=1e-3)


def test_further_prompts_pull_and_weights_of_zero_do_not(tiny):
    base = tiny("epsilon")
    plain = latents(base, guidance_scale=1.0)
    assert torch.equal(latents(base, guidance_scale=1.0, compose=[("a red sky", 0.0)]), plain)
    assert not torch.allclose(latents(base, guidance_scale=1.0, compose=[("a red sky", 2.0)]), plain, atol=1e-3)


def test_zero_steps_are_for_flows(tiny):
    with pytest.raises(SettingsError, match="flow matching"):
        latents(tiny("epsilon"), guidance_scale=4.0, guidance="cfg-zero:zero_steps=1")


@pytest.mark.parametrize(
    ("text", "reason"), [("pag:layers=nowhere", "no such layer"), ("slg:layers=99", "no such layer")]
)
def test_layers_that_are_not_there_are_refused(tiny, text, reason):
    with pytest.raises(SettingsError, match=reason):
        latents(tiny("epsilon"), guidance_scale=4.0, guidance=text)
