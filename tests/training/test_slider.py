"""Sliders: what a run learns, what it refuses, and that the adapter's scale goes both ways from the base."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import tiny

import adapt
from adapt.adapter import Adapter
from adapt.api.slider import require_words
from adapt.backbones import Backbone
from adapt.config import resolve
from adapt.config.slider import opposites
from adapt.errors import SettingsError
from adapt.training.step import conditions, latents, row_losses

PICTURES = Path(__file__).parents[2] / "examples" / "data" / "openmoji" / "train"
SLIDER = "a bright thing|a dark thing"
OWN = {"slider": SLIDER, "slider_strength": 3.0, "caption_dropout": 0.0}
SHORT = {**OWN, "steps": 40, "batch_size": 4, "accumulation": 1, "learning_rate": 2e-2, "ema": 0.0, "dropout": 0.0,
         "rank": 4, "targets": ("to_q", "to_k", "to_v", "to_out.0"), "validate_every": 40, "save_every": 40,
         "warmup": 0, "schedule": "constant"}  # fmt: skip


@torch.no_grad()
def difference(backbone, x_t, t):
    """What lies between the two prompts."""
    more, less = (backbone.condition([prompt] * len(x_t)) for prompt in opposites(SLIDER))
    return backbone.predict(x_t, t, more) - backbone.predict(x_t, t, less)


def test_the_step_compares_with_the_base_moved_along_the_difference(course):
    run = course(**OWN)
    rows = run.plan.rows(0, range(run.settings.batch_size))
    x = latents(run, rows)
    t, noise = run.objective.times(rows.quantiles()), rows.noise(x.shape[1:])
    x_t, condition = run.objective.noised(x, noise, t), conditions(run, rows)
    with torch.no_grad():
        losses, prediction = row_losses(run, rows), run.backbone.predict(x_t, t, condition)
        with run.injection.disabled():
            expected = run.backbone.predict(x_t, t, condition) + 3.0 * difference(run.backbone, x_t, t)
    assert torch.allclose(losses, (prediction - expected).square().flatten(1).mean(1), rtol=1e-4)
    assert (losses > 1e-6).all()


@pytest.fixture(scope="module")
def slid(captioned, tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slider") / "run"
    return adapt.train(captioned, output=folder, base=str(tiny_base), settings=tiny(**SHORT))


def test_the_scale_goes_along_the_difference_and_the_other_way_below_zero(slid, tiny_base):
    backbone = Backbone.load(str(tiny_base))
    lot = torch.Generator().manual_seed(9)
    x_t, t = torch.randn(8, *backbone.own_latents, generator=lot), torch.linspace(100, 900, 8).long()
    condition = backbone.condition(["picture 1"] * 8)
    wanted = difference(backbone, x_t, t)
    with torch.no_grad():
        base, moved = backbone.predict(x_t, t, condition), {}
        for scale in (1.0, -1.0):
            with slid.adapter.apply(backbone, scale):
                moved[scale] = backbone.predict(x_t, t, condition) - base
    along = {s: float(torch.cosine_similarity(d.flatten(), wanted.flatten(), 0)) for s, d in moved.items()}
    assert along[1.0] > 0.3 and along[-1.0] < -0.3, along


def test_scale_0_is_the_base_to_the_byte_and_the_file_says_what_it_is(slid, tiny_base):
    backbone, adapter = Backbone.load(str(tiny_base)), Adapter.load(slid.folder)
    pictures = [
        np.asarray(adapt.generate(backbone, prompt="picture 1", steps=3, adapters=worn, guidance_scale=2.0)[0])
        for worn in ([], [(adapter, 0.0)], [(adapter, 1.0)], [(adapter, -1.0)])
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not any(np.array_equal(pictures[0], other) for other in pictures[2:])
    assert (adapter.facts.training["slider"], adapter.facts.training["slider_strength"]) == (SLIDER, 3.0)
    assert adapter.facts.training["held_out"]["ratio"] < 1  # nearer to the slider's target than the base is


@pytest.mark.parametrize("slider", ["red", "red|", "|blue", "red|red", "a|b|c"])
def test_two_different_prompts_are_needed(slider):
    with pytest.raises(SettingsError, match="two different prompts"):
        resolve(None, [f"slider={slider}"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["slider=a|b", "distill=guidance"], "distill"),
        (["slider=a|b", "anchor_above=0.5"], "anchor_above"),
        (["slider=a|b", "caption_dropout=0.1"], "caption_dropout"),
        (["slider=a|b", "train_text_encoder=true"], "same words"),
        (["slider_strength=3"], "only with slider"),
        (["slider=a|b", "slider_strength=0"], "slider_strength"),
    ],
)
def test_what_does_not_go_with_a_slider_is_refused(words, told):
    with pytest.raises(SettingsError, match=told):
        resolve(None, words)


def test_captions_are_kept_unless_it_is_said_otherwise():
    found = resolve(None, ["slider=a|b"])
    assert found.settings.caption_dropout == 0 and found.origins["caption_dropout"] == "slider"


def test_a_base_without_words_is_refused(tiny_base):
    backbone = Backbone.load(str(tiny_base))
    backbone.slots = {}
    with pytest.raises(SettingsError, match="takes none"):
        require_words(tiny(**OWN), backbone)


@pytest.mark.slow
def test_red_or_blue_on_icons(tmp_path):
    """Few steps on pictures of the bundled set; colours of drawings then follow the scale's sign."""
    settings = adapt.TrainSettings(slider="a red thing|a blue thing", slider_strength=2.0, steps=30, batch_size=4,
                                   learning_rate=1e-3, rank=8, validation=0, previews=(), ema=0.0, seed=1)  # fmt: skip
    made = adapt.train(PICTURES, output=tmp_path / "run", base="icons", settings=settings).adapter
    backbone = Backbone.load("icons")
    redness = {}
    for scale in (-1.0, 0.0, 1.0):
        worn = [(made, scale)]
        drawn = adapt.generate(backbone, prompt=["a ball", "a cup", "a car"], count=2, steps=10, adapters=worn)
        pixels = np.stack([np.asarray(picture, np.float64) for picture in drawn])
        redness[scale] = float((pixels[..., 0] - pixels[..., 2]).mean())
    assert redness[-1.0] + 3 < redness[0.0] < redness[1.0] - 3, redness
