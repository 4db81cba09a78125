"""Noise, weights, targets and priors as the step puts them together, on a tiny base with a tiny adapter."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_runs import tiny

from adapt.api.gather import gather
from adapt.errors import SettingsError
from adapt.objectives import Flow, TimeSampling
from adapt.training.step import conditions, latents, row_losses, row_weights
from conditioning import Condition


def rows_of(course, step=0):
    return course.plan.rows(step, range(course.settings.batch_size))


def seen(course, step=0):
    """x, t, condition and plain noise of a step."""
    rows = rows_of(course, step)
    x = latents(course, rows)
    return x, course.objective.times(rows.quantiles()), conditions(course, rows), rows.noise(x.shape[1:])


def losses(course, step=0):
    with torch.no_grad():
        return row_losses(course, rows_of(course, step))


def predicted(course, x_t, t, condition):
    with torch.no_grad():
        return course.backbone.predict(x_t, t, condition)


def alone(prior_rows, course):
    return [i in prior_rows for i in rows_of(course).items()]


def test_without_a_word_the_step_is_the_papers(course):
    """v = √ᾱ ε - √(1 - ᾱ) x against the prediction at x_t, squared; to the bit."""
    run = course()
    x, t, condition, noise = seen(run)
    alpha = run.objective.alphas_cumprod[t].view(-1, 1, 1, 1)
    x_t, v = alpha.sqrt() * x + (1 - alpha).sqrt() * noise, alpha.sqrt() * noise - (1 - alpha).sqrt() * x
    expected = (predicted(run, x_t, t, condition) - v).square().flatten(1).mean(1)
    assert torch.equal(losses(run), expected)


def test_weights_and_loss_reach_the_step(course):
    plain, run = course(), course(weighting="debiased", loss="huber", huber_schedule="constant")
    x, t, condition, noise = seen(plain)
    error = predicted(plain, plain.objective.noised(x, noise, t), t, condition) - plain.objective.target(x, noise, t)
    snr = plain.objective.snr(t)
    expected = (0.2 * ((error**2 + 0.01).sqrt() - 0.1)).flatten(1).mean(1) * snr.sqrt() / (snr + 1)
    assert torch.allclose(losses(run), expected, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------------ noise
def test_perturbed_input_keeps_the_target(course):
    plain, run = course(), course(ip_noise_gamma=0.5)
    x, t, condition, noise = seen(run)
    xi = rows_of(run).noise(x.shape[1:], "noise-input")
    x_t = run.objective.noised(x, noise + 0.5 * xi, t)
    expected = (predicted(run, x_t, t, condition) - run.objective.target(x, noise, t)).square().flatten(1).mean(1)
    assert torch.equal(losses(run), expected) and not torch.equal(losses(run), losses(plain))


def test_shaped_noise_is_in_input_and_target(course):
    run = course(noise_offset=0.5)
    x, t, condition, noise = seen(run)
    noise = noise + 0.5 * rows_of(run).noise((4,), "noise-offset").view(-1, 4, 1, 1)
    error = predicted(run, run.objective.noised(x, noise, t), t, condition) - run.objective.target(x, noise, t)
    assert torch.allclose(losses(run), error.square().flatten(1).mean(1))


EVERYTHING = {
    **{"nearest_noise": 3, "ip_noise_gamma": 0.1, "weighting": "p2", "loss": "smooth_l1", "time_sampling": "cosmap"},
    **{
        "time_shift": 1.5,
        "zero_terminal_snr": True,
        "prior_prompt": "a picture",
        "prior_target": "base",
        "anchor_above": 0.8,
    },
}


@pytest.mark.parametrize("coarse", [{"noise_offset": 0.1, "adaptive_noise_scale": 0.1}, {"multires_noise_iterations": 4}],
                         ids=["offset", "multires"])  # fmt: skip
def test_a_row_is_the_same_in_any_piece_of_the_batch(course, coarse):
    run = course(prior=(0, 3, 5), dropout=0.2, **EVERYTHING, **coarse)
    run.backbone.denoiser.train()
    together = losses(run)
    apart = [row_losses(run, run.plan.rows(0, [p])) for p in range(4)]
    assert torch.allclose(together, torch.cat(apart), rtol=1e-4)
    drawn = [run.noise(latents(run, r), r.noise, lambda s, r=r: r.plan.uniform(s, r.step, 0))
             for r in (rows_of(run), *(run.plan.rows(0, [p]) for p in range(4)))]  # fmt: skip
    assert torch.equal(drawn[0], torch.cat(drawn[1:]))


def test_with_zero_terminal_snr_the_last_time_is_pure_noise(course):
    run = course(zero_terminal_snr=True)
    x, _, _, noise = seen(run)
    last = torch.full((4,), 999)
    assert torch.equal(run.objective.noised(x, noise, last), noise)
    assert torch.equal(run.objective.target(x, noise, last), -x)
    assert not torch.equal(course().objective.noised(x, noise, last), noise)


def test_a_shift_by_resolution_sees_the_size_of_the_latents(course):
    sizes = []

    def by_size(dims):
        sizes.append(tuple(dims))
        return 2.0

    run = replace(course(), objective=Flow(TimeSampling(shift="resolution"), by_size=by_size))
    asked = []
    predict = run.backbone.predict
    run.backbone.predict = lambda x_t, t, condition: asked.append(t) or predict(x_t, t, condition)
    losses(run)
    u = rows_of(run).quantiles()
    assert sizes == [(8, 8)]
    assert torch.allclose(asked[0].double(), 1000 * 2 * u / (1 + u))


def test_a_mask_leaves_the_rest_of_the_picture_out(course, monkeypatch):
    run = course()
    x, t, condition, noise = seen(run)
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:5, 1:7] = 1.0
    masked = rows_of(run).items()[1]
    monkeypatch.setattr(run.examples, "weight", lambda i, *view: mask if i == masked else None)
    error = predicted(run, run.objective.noised(x, noise, t), t, condition) - run.objective.target(x, noise, t)
    expected = error.square().flatten(1).mean(1)
    inside = error.square()[:, :, 2:5, 1:7].flatten(1).mean(1)
    where = torch.tensor([i == masked for i in rows_of(run).items()])
    assert torch.allclose(losses(run), torch.where(where, inside, expected)) and where.any()


# ------------------------------------------------------------------------------------------------------- prior preservation
def test_pictures_of_the_class_count_by_their_weight(course):
    marked = (0, 2, 4)
    plain, run = course(), course(prior=marked, prior_weight=0.25)
    of_class = torch.tensor(alone(marked, run))
    assert 0 < of_class.sum() < 4
    assert torch.equal(row_weights(run, rows_of(run)), torch.where(of_class, 0.25, 1.0))
    assert torch.equal(losses(run), losses(plain) * torch.where(of_class, 0.25, 1.0))


def test_they_can_be_compared_with_what_the_base_says_of_them(course):
    marked = tuple(rows_of(course()).items()[1:3])
    run = course(prior=marked, prior_target="base")
    of_class = torch.tensor(alone(marked, run))
    x, t, condition, noise = seen(run)
    x_t = run.objective.noised(x, noise, t)
    with run.injection.disabled():
        base = predicted(run, x_t, t, condition)
    taught = (predicted(run, x_t, t, condition) - base).square().flatten(1).mean(1)
    assert torch.allclose(losses(run), torch.where(of_class, taught, losses(course())), rtol=1e-4)
    assert (taught > 1e-6).all()
    fresh = course(prior=marked, prior_target="base", moved=False)
    assert torch.equal(losses(fresh) > 1e-9, ~of_class)  # an adapter that does nothing is what the base is


def test_the_words_of_a_class_are_kept_beside_every_picture(course):
    plain, run = course(), course(prior_prompt="a picture", prior_weight=0.5)
    x, t, _, noise = seen(run)
    x_t = run.objective.noised(x, noise, t)
    words = run.backbone.condition(["a picture"]).expand(4)
    with run.injection.disabled():
        base = predicted(run, x_t, t, words)
    drift = (predicted(run, x_t, t, words) - base).square().flatten(1).mean(1)
    assert torch.allclose(losses(run), losses(plain) + 0.5 * drift, rtol=1e-4)
    assert (drift > 1e-6).all()
    untouched = {"moved": False, "prior_prompt": "a picture"}
    assert torch.equal(losses(course(**untouched)), losses(course(moved=False)))


def test_the_prior_sees_the_words_and_nothing_of_the_pictures_captions(course):
    run = course(prior_prompt="a picture")
    asked = []
    predict = run.backbone.predict

    def note(x_t, t, condition):
        asked.append(condition)
        return predict(x_t, t, condition)

    object.__setattr__(run.prior, "student", note)
    losses(run)
    words = run.backbone.condition(["a picture"]).parts["text"]["tokens"]
    assert isinstance(asked[0], Condition)
    assert torch.allclose(asked[0].parts["text"]["tokens"], words.expand(4, -1, -1), atol=1e-6)


def test_only_the_adapter_is_moved_by_its_prior(course):
    run = course(prior_prompt="a picture")
    x, t, _, noise = seen(run)
    run.prior.losses(run.objective.noised(x, noise, t), t).sum().backward()
    moved = {
        name for name, p in run.backbone.denoiser.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved and all(".lora_" in name for name in moved)


def test_a_run_with_everything_ends_and_is_proved(train, captioned, pictures, tmp_path, make_tiny):
    base, data = tmp_path / "base", tmp_path / "data.yaml"
    make_tiny("v_prediction").save_pretrained(base)
    data.write_text(f"sources: [{{path: {captioned}}}, {{path: {pictures}, prior: true}}]", encoding="utf-8")
    result = train(tmp_path / "run", data=data, base=base, steps=2, multires_noise_iterations=4, **EVERYTHING)
    assert result.proof.layers > 0 and len(result.history) == 2
    assert all(math.isfinite(loss) for loss in result.history.values())


# --------------------------------------------------------------------------------------------------------- nothing is silent
@pytest.mark.parametrize("changes", [{"prior_target": "base"}, {"prior_weight": 0.5}], ids=str)
def test_settings_of_prior_pictures_need_such_pictures(captioned, changes):
    with pytest.raises(SettingsError, match="there are none"):
        gather(captioned, tiny(**changes))
    gather(captioned, tiny(prior_prompt="a picture", prior_weight=0.5))
