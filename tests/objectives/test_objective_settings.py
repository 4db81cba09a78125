"""Settings of times, weights, loss and noise: what means nothing together is refused with the reason; the rest arrives."""

import pytest
import torch

from adapt.config import OTHER_NAMES, TrainSettings, resolve
from adapt.errors import SettingsError
from adapt.objectives import PLAIN


def settings(**changes):
    return TrainSettings(**changes)


REFUSED = [
    (["logit_mean=0.5"], "time_sampling=logit_normal"),
    (["logit_std=0.5", "time_sampling=mode"], "time_sampling=logit_normal"),
    (["mode_scale=0.5", "time_sampling=logit_normal"], "time_sampling=mode"),
    (["min_snr_gamma=5", "weighting=debiased"], "weighting=min_snr or weighting=soft_min_snr"),
    (["min_snr_gamma=5", "weighting=none"], "weighting=min_snr or weighting=soft_min_snr"),
    (["p2_gamma=0.5"], "weighting=p2"),
    (["p2_k=2", "weighting=min_snr"], "weighting=p2"),
    (["huber_c=0.2"], "loss=huber or loss=smooth_l1"),
    (["huber_schedule=constant"], "loss=huber or loss=smooth_l1"),
    (["adaptive_noise_scale=0.1"], "give noise_offset as well"),
    (["multires_noise_discount=0.5"], "only with multires_noise_iterations"),
    (["noise_offset=0.05", "multires_noise_iterations=6"], "give one of them"),
    (["time_low=0.6", "time_high=0.5"], "must lie below"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_would_do_nothing_is_refused_with_the_reason(words, message):
    with pytest.raises(SettingsError, match=message):
        resolve(overrides=words)


TOGETHER = [
    ["min_snr_gamma=5"],
    ["weighting=min_snr", "min_snr_gamma=3"],
    ["weighting=soft_min_snr", "min_snr_gamma=3"],
    ["weighting=p2", "p2_gamma=0.5", "p2_k=2"],
    ["time_sampling=logit_normal", "logit_mean=-0.5", "logit_std=0.8", "time_shift=3"],
    ["time_sampling=mode", "mode_scale=-0.5"],
    ["loss=smooth_l1", "huber_c=0.5", "huber_schedule=exponential"],
    ["noise_offset=0.05", "adaptive_noise_scale=0.01", "ip_noise_gamma=0.1", "nearest_noise=4"],
    ["multires_noise_iterations=6", "multires_noise_discount=0.4"],
    ["prior_prompt=a dog", "prior_weight=0.5", "prior_target=base"],
    ["time_shift=resolution"],
]


@pytest.mark.parametrize("words", TOGETHER, ids=" ".join)
def test_what_goes_together_is_taken_and_a_run_that_stored_it_goes_on(words):
    found = resolve(overrides=words).settings
    assert resolve(stored=found.model_dump(mode="json")).settings == found


@pytest.mark.parametrize(
    "word",
    ["time_shift=0", "time_shift=-1", "time_shift=size", "weighting=snr", "loss=l1", "huber_c=0", "noise_offset=-0.1",
     "multires_noise_iterations=-1", "multires_noise_discount=1.1", "nearest_noise=0", "ip_noise_gamma=-1", "mode_scale=2",
     "logit_std=0", "prior_weight=0", "prior_weight=-1", "prior_target=none", "p2_k=0", "prior_prompt=''"],
)  # fmt: skip
def test_values_out_of_range_are_named(word):
    with pytest.raises(SettingsError, match=rf"^{word.partition('=')[0]}: "):
        resolve(overrides=[word])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("snr_gamma", "min_snr_gamma"), ("loss_type", "loss"), ("debiased_estimation_loss", "weighting"),
     ("discrete_flow_shift", "time_shift"), ("input_perturbation", "ip_noise_gamma"),
     ("prior_loss_weight", "prior_weight"), ("rescale_betas_zero_snr", "zero_terminal_snr")],
)  # fmt: skip
def test_names_of_other_trainers_lead_to_ours(theirs, ours):
    assert OTHER_NAMES[theirs] == ours


# ----------------------------------------------------------------------------------------------- from settings to objects
@pytest.fixture(scope="module")
def backbone(make_tiny):
    from adapt.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion(make_tiny("v_prediction"), "tiny")


def made(backbone, **changes):
    from adapt.api.objective import make_objective

    return make_objective(backbone, settings(**changes))


T = torch.arange(0, 1000, 37)


def test_without_a_word_everything_is_as_it_was(backbone):
    from adapt.api.objective import make_noise

    objective = made(backbone)
    assert (objective.weight(T) == 1).all() and make_noise(settings()) == PLAIN
    assert objective.times(torch.arange(0, 1, 0.001, dtype=torch.float64)).tolist() == list(range(1000))
    assert objective.loss is None


def test_the_gamma_alone_is_min_snr_as_ever(backbone):
    """The words of kohya's users, and of runs that are resumed."""
    alone, named = made(backbone, min_snr_gamma=3.0), made(backbone, weighting="min_snr", min_snr_gamma=3.0)
    snr = alone.snr(T)
    assert torch.allclose(alone.weight(T), snr.clamp(max=3.0) / (snr + 1))
    assert torch.equal(alone.weight(T), named.weight(T))


def test_every_parameter_arrives(backbone):
    from adapt.api.objective import make_noise

    snr = made(backbone).snr(T)
    assert torch.allclose(made(backbone, weighting="min_snr").weight(T), snr.clamp(max=5.0) / (snr + 1))
    soft = made(backbone, weighting="soft_min_snr", min_snr_gamma=4.0)
    assert torch.allclose(soft.weight(T), snr * 4 / (snr + 4) / (snr + 1))
    p2 = made(backbone, weighting="p2", p2_gamma=0.5, p2_k=2.0)
    assert torch.allclose(p2.weight(T), snr / (2 + snr).sqrt() / (snr + 1))
    loss = made(backbone, loss="huber", huber_c=0.2, huber_schedule="exponential").loss
    assert (loss.kind, loss.c, loss.schedule) == ("huber", 0.2, "exponential")
    times = made(
        backbone, time_sampling="logit_normal", logit_mean=0.5, logit_std=0.7, time_shift=2.0, time_low=0.1
    ).sampling
    assert (times.kind, times.mean, times.std, times.shift, times.low) == ("logit_normal", 0.5, 0.7, 2.0, 0.1)
    mode = made(backbone, time_sampling="mode", mode_scale=0.5, time_high=0.8).sampling
    assert (mode.kind, mode.scale, mode.high) == ("mode", 0.5, 0.8)
    noise = make_noise(settings(noise_offset=0.05, adaptive_noise_scale=0.01, ip_noise_gamma=0.1, nearest_noise=4))
    assert (noise.offset, noise.adaptive, noise.perturbation, noise.candidates) == (0.05, 0.01, 0.1, 4)
    noise = make_noise(settings(multires_noise_iterations=6, multires_noise_discount=0.4))
    assert (noise.iterations, noise.discount) == (6, 0.4)
    assert made(backbone, zero_terminal_snr=True).alphas_cumprod[-1] == 0


@pytest.mark.parametrize(
    ("prediction", "changes", "message"),
    [
        ("epsilon", {"zero_terminal_snr": True}, "predicts v or x"),
        ("epsilon", {"time_shift": "resolution"}, "time_shift=1.5"),
        ("v_prediction", {"time_shift": "resolution"}, "time_shift=1.5"),
    ],
)
def test_what_the_base_cannot_take_is_refused_before_anything_is_written(make_tiny, prediction, changes, message):
    from adapt.api.settle import settle
    from adapt.backbones.stable_diffusion import StableDiffusion

    with pytest.raises(SettingsError, match=message):
        settle(settings(**changes), StableDiffusion(make_tiny(prediction), "tiny"))
