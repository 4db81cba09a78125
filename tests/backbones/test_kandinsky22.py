"""Kandinsky 2.2: what its prior says of a caption, what it is told where nothing is said, variances that nobody asks for."""

import json

import diffusers
import pytest
import torch
from tiny_families import built

from adapt.api.controls import require_place
from adapt.backbones.kandinsky22 import Kandinsky22
from adapt.config import TrainSettings
from adapt.errors import BackboneError, SettingsError
from adapt.loading import read_index
from adapt.sampling.draw import draw_latents
from adapt.sampling.noise import generator_of
from adapt.sampling.request import Request, settle


def test_a_caption_says_the_same_whenever_it_is_read(backbones):
    backbone = backbones("kandinsky22")
    both, alone = backbone.condition(["a cat", "rain"]), backbone.condition(["rain"])
    assert torch.equal(both.parts["text"]["embedding"][1:], alone.parts["text"]["embedding"])
    assert (both.parts["text"]["embedding"][0] - alone.parts["text"]["embedding"][0]).abs().max() > 1e-3


def test_the_null_is_black_and_not_a_caption_without_words(backbones):
    backbone = backbones("kandinsky22")
    null = backbone.null(2).parts["text"]["embedding"]
    assert torch.equal(null, backbone.pipeline.prior_pipe.get_zero_embed(2))
    assert (null - backbone.condition(["", ""]).parts["text"]["embedding"]).abs().max() > 1e-3


def test_a_scheduler_of_learned_variances_draws_with_fixed_ones():
    """As the published decoder's may be: the network's variances are left out, its noise is not."""
    pipeline = built("kandinsky22")
    told = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False}
    latents = []
    for kind in ("learned_range", "fixed_small"):
        pipeline.scheduler = diffusers.DDPMScheduler(**told, variance_type=kind)
        backbone = Kandinsky22(pipeline, "tiny")
        drawing = settle(Request(prompt="a", steps=2, height=32, width=32), backbone)
        latents.append(draw_latents(backbone, [drawing], [generator_of(1)]))
    assert torch.equal(*latents)


def test_sizes_are_those_that_its_pipeline_can_draw(backbones):
    backbone = backbones("kandinsky22")
    assert backbone.multiple == 8 * backbone.scale_factor
    with pytest.raises(SettingsError, match="multiples of 16"):
        settle(Request(prompt="a", height=24, width=32), backbone)


@pytest.mark.parametrize(("half", "missing"), [("Pipeline", "prior"), ("PriorPipeline", "decoder")])
def test_half_of_it_says_what_is_missing(half, missing, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": f"KandinskyV22{half}"}))
    with pytest.raises(BackboneError, match=f"its {missing} is missing"):
        read_index(tmp_path)


def test_a_controlnet_does_not_fit_it(backbones):
    with pytest.raises(SettingsError, match="none that it fits"):
        require_place(backbones("kandinsky22"), TrainSettings(control="edges", control_as="controlnet"))
