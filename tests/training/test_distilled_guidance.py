"""Guidance distilled into the adapter: what a run learns, what it refuses, and how its adapter is drawn with."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from tiny_runs import tiny
from typer.testing import CliRunner

import adapt
from adapt.api.advice import advice_of
from adapt.api.distillation import worn_off
from adapt.api.settle import settle
from adapt.api.tools import merge
from adapt.backbones import Backbone
from adapt.backbones.stable_diffusion import StableDiffusion
from adapt.cli.main import app
from adapt.config import resolve
from adapt.errors import SettingsError
from adapt.training.step import conditions, latents, row_losses

DISTIL = {"distill": "guidance", "caption_dropout": 0.0, "guidance_scale": None}
SHORT = {**DISTIL, "distill_scale": 4.0, "validation": None, "steps": 2, "dropout": 0.0}


def seen(course):
    rows = course.plan.rows(0, range(course.settings.batch_size))
    x = latents(course, rows)
    t, noise = course.objective.times(rows.quantiles()), rows.noise(x.shape[1:])
    return rows, course.objective.noised(x, noise, t), t, conditions(course, rows)


@torch.no_grad()
def guided(backbone, x_t, t, condition, scale):
    c, n = backbone.predict(x_t, t, condition), backbone.predict(x_t, t, backbone.null(len(x_t)))
    return n + scale * (c - n)


# ------------------------------------------------------------------------------------------------------------ what is learned
def test_the_step_compares_with_the_guided_prediction_of_the_base_without_the_adapter(course):
    run = course(**DISTIL, distill_scale=4.0)
    rows, x_t, t, condition = seen(run)
    with torch.no_grad():
        losses, prediction = row_losses(run, rows), run.backbone.predict(x_t, t, condition)
    with run.injection.disabled():
        expected = guided(run.backbone, x_t, t, condition, 4.0)
    assert torch.allclose(losses, (prediction - expected).square().flatten(1).mean(1), rtol=1e-4)
    assert (losses > 1e-5).all()


def test_pictures_only_say_where_the_base_is_asked(course):
    """Another picture with other noise that come to the same x_t are the same lesson."""
    run = course(**DISTIL)
    rows, x_t, t, condition = seen(run)
    x, noise = latents(run, rows), rows.noise(x_t.shape[1:])
    sigma = run.objective.noised(torch.zeros_like(x), torch.ones_like(x), t)
    first, again = run.target(x, noise, t, condition), run.target(torch.zeros_like(x), x_t / sigma, t, condition)
    assert torch.allclose(first, again, atol=1e-4) and not first.requires_grad


def test_the_teacher_can_wear_an_adapter_that_the_run_starts_from(course, style):
    run = course(**DISTIL, distill_scale=3.0, distill_adapter=str(style.folder), moved=False)
    rows, x_t, t, condition = seen(run)
    bare = StableDiffusion(run.backbone.pipeline, "tiny")
    with torch.no_grad():
        losses, prediction = row_losses(run, rows), run.backbone.predict(x_t, t, condition)
        run.injection.remove()
        plain = guided(bare, x_t, t, condition, 3.0)
        with style.adapter.apply(bare):
            worn, student = guided(bare, x_t, t, condition, 3.0), bare.predict(x_t, t, condition)
    assert torch.allclose(prediction, student, atol=1e-5)  # it starts where the style ended
    assert torch.allclose(losses, (prediction - worn).square().flatten(1).mean(1), rtol=1e-3)
    assert not torch.allclose(worn, plain, atol=1e-3)


def test_the_base_is_itself_again_after_the_teacher_wore_an_adapter(course, style):
    run = course(**DISTIL, distill_scale=3.0, distill_adapter=str(style.folder))
    before = {name: p.detach().clone() for name, p in run.backbone.denoiser.named_parameters()}
    rows, *_ = seen(run)
    with torch.no_grad():
        row_losses(run, rows)
    assert all(torch.equal(before[name], p) for name, p in run.backbone.denoiser.named_parameters())


def test_learning_it_brings_the_unguided_prediction_to_the_guided_one(train, tiny_base, tmp_path):
    more = {
        "steps": 40,
        "learning_rate": 3e-2,
        "rank": 8,
        "targets": None,
        "accumulation": 1,
        "ema": 0.0,
        "save_every": 40,
    }
    result = train(tmp_path / "run", **{**SHORT, **more, "validation": 0.25, "validate_every": 40})
    first, last = result.measurements[0], result.measurements[-1]
    assert first.ratio == pytest.approx(1.0) and last.ratio < 0.9


# ---------------------------------------------------------------------------------------------------------- what is settled
def test_scale_comes_from_the_setting_else_the_adapter_else_the_family(style, make_tiny):
    backbone = StableDiffusion(make_tiny("epsilon"), "tiny")
    assert settle(tiny(**DISTIL, distill_scale=2.5), backbone).distill_scale == 2.5
    assert settle(tiny(**DISTIL), backbone).distill_scale == backbone.guidance_scale
    settled = settle(tiny(**DISTIL), backbone)
    assert settled.guidance_scale == 1.0  # of previews and samples


def test_presets_and_defaults_give_way_to_what_is_distilled():
    found = resolve(overrides=["distill=guidance", "preset=style", "distill_adapter=x"])
    assert found.settings.caption_dropout == 0 and found.settings.anchor_above is None
    assert (
        found.settings.init_from == "x"
        and found.settings.init_resize
        and found.origins["init_from"] == "distill=guidance"
    )
    assert resolve(overrides=["distill=guidance", "distill_adapter=x", "init_from="]).settings.init_from is None
    assert resolve(overrides=["distill=guidance", "init_from=x"]).settings.distill_adapter == "x"
    assert resolve(overrides=["distill=guidance", "init_from=x", "distill_adapter="]).settings.distill_adapter is None


REFUSED = [
    (["distill_scale=3"], "only with distill=guidance"),
    (["distill=guidance", "distill_scale=1"], "greater than 1"),
    (["distill=guidance", "guidance_scale=3"], "distill_scale=3"),
    (["distill=guidance", "caption_dropout=0.1"], "empty captions"),
    (["distill=guidance", "anchor_above=0.5"], "right at all times"),
    (["distill=guidance", "prior_prompt=a dog"], "right at all times"),
    (["distill=guidance", "ip_noise_gamma=0.1"], "same noise"),
    (["distill=guidance", "train_text_encoder=true"], "hear the same words"),
    (["distill=guidance", "classes=true"], "knows no classes"),
    (["distill=guidance", "image_prompts=true"], "shown no pictures"),
    (["distill=guidance", "control=edges"], "shown no pictures"),
    (["distill=guidance", "distill_adapter=x", "quantize=int8-quanto"], "few bits"),
    (["distill=guidance", "distill_adapter=x", "init_from=", "init=pissa"], "splits the weights"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_has_no_place_beside_it_is_refused_with_the_reason(words, message):
    with pytest.raises(SettingsError, match=message):
        resolve(overrides=words)


def test_a_base_without_guidance_or_with_guidance_as_an_input_is_refused(make_tiny, monkeypatch):
    backbone = StableDiffusion(make_tiny("epsilon"), "tiny")
    monkeypatch.setattr(StableDiffusion, "guidance_scale", 1.0)
    with pytest.raises(SettingsError, match="no scale to learn"):
        settle(tiny(**DISTIL), backbone)
    monkeypatch.setattr(StableDiffusion, "embedded_guidance", 3.5)
    with pytest.raises(SettingsError, match="told its guidance as a number"):
        settle(tiny(**DISTIL, distill_scale=3.0), backbone)


# ---------------------------------------------------------------------------------------------------- the adapter and drawing
@pytest.fixture(scope="module")
def style(captioned, tiny_base, tmp_path_factory):
    """A finished run that learned pictures."""
    return adapt.train(captioned, output=tmp_path_factory.mktemp("style") / "run", base=str(tiny_base),
                       settings=tiny(steps=4, learning_rate=0.1, validation=None))  # fmt: skip


@pytest.fixture(scope="module")
def distilled(captioned, tiny_base, tmp_path_factory):
    """A finished run that learned guidance at 4."""
    return adapt.train(captioned, output=tmp_path_factory.mktemp("distilled") / "run", base=str(tiny_base),
                       settings=tiny(**SHORT))  # fmt: skip


def test_the_adapter_says_that_guidance_is_inside(distilled):
    told = json.loads((distilled.folder / "adapter" / "adapter.json").read_text("utf-8"))
    assert told["distilled"] == {"guidance_scale": 4.0, "guidance_rescale": 0.0}
    assert told["recommended"]["guidance_scale"] == 1.0
    assert "guidance at 4 was distilled" in " ".join((distilled.folder / "adapter" / "README.md").read_text().split())


def test_it_is_drawn_at_scale_1_and_a_second_guidance_is_warned_of(distilled, tiny_base):
    backbone, calls = Backbone.load(str(tiny_base)), []
    predict = backbone.predict
    backbone.predict = lambda x_t, t, condition: calls.append(len(x_t)) or predict(x_t, t, condition)
    asked = {"prompt": "a picture", "adapters": [distilled.adapter], "steps": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (plain,) = adapt.generate(backbone, **asked)
    assert calls == [1, 1]  # one forward pass a step
    assert plain.tobytes() == adapt.generate(backbone, **asked, guidance_scale=1)[0].tobytes()
    with pytest.warns(UserWarning, match="guidance at 4 is inside run; at guidance scale 3"):
        adapt.generate(backbone, **asked, guidance_scale=3)


def test_beside_another_adapter_the_scale_is_1_too(distilled, style):
    assert advice_of([style.adapter, distilled.adapter])["guidance_scale"] == 1.0
    assert advice_of([distilled.adapter, style.adapter])["guidance_scale"] == 1.0
    loud = replace(style.adapter, facts=replace(style.adapter.facts, recommended={"guidance_scale": 5.0}))
    assert advice_of([loud])["guidance_scale"] == 5.0
    merged = merge([(loud, 1.0), (distilled.adapter, 1.0)]).adapter.facts
    assert merged.distilled == distilled.adapter.facts.distilled and merged.recommended["guidance_scale"] == 1.0


def test_the_command_says_so(distilled, tiny_base, tmp_path):
    words = ["generate", "--prompt", "a picture", "--adapter", str(distilled.folder), "--base", str(tiny_base), "--steps", "1",
             "--output", str(tmp_path)]  # fmt: skip
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0 and "guidance at 4 is inside run: drawn at scale 1" in told.stderr
    told = CliRunner().invoke(app, [*words, "--guidance-scale", "2", "--negative-prompt", "x"])
    assert told.exit_code == 0 and "warning: guidance at 4 is inside run; at guidance scale 2" in told.stderr
    told = CliRunner().invoke(app, [*words, "--negative-prompt", "x"])
    assert "a negative prompt does nothing" in told.stderr


def test_what_was_distilled_is_not_distilled_again(distilled, make_tiny):
    backbone = StableDiffusion(make_tiny("epsilon"), "tiny")
    with pytest.raises(SettingsError, match="has guidance inside already"):
        settle(tiny(**DISTIL, distill_adapter=str(distilled.folder)), backbone)


def test_learning_pictures_on_top_of_it_is_warned_of(distilled, style):
    (warning,) = worn_off(tiny(init_from=str(distilled.folder)))
    assert "guidance at 4 inside" in warning
    assert not worn_off(tiny(init_from=str(style.folder)))
    assert not worn_off(tiny(**DISTIL, init_from=str(distilled.folder), distill_adapter=None))


def test_a_teachers_adapter_that_changed_meanwhile_is_another_course(style):
    from adapt.api.network import digest_of

    both, own = tiny(**DISTIL, distill_adapter=str(style.folder)), tiny(init_from=str(style.folder))
    assert digest_of(both) == digest_of(own)  # one file, named twice
    alone = tiny(**{**DISTIL, "init_from": None}, distill_adapter=str(style.folder))
    assert digest_of(alone) == digest_of(own)
