"""Even quantiles become times of the wanted density, inside the wanted range."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

from adapt.errors import SettingsError
from adapt.objectives import Epsilon, Flow, TimeSampling, objective_of

Q = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000


def test_uniform_is_the_quantile_itself():
    assert torch.equal(TimeSampling()(Q), Q)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.8), (1.0, 0.5)])
def test_logit_normal_has_its_distribution(mean, std):
    u = TimeSampling("logit_normal", mean=mean, std=std)(Q)
    logits = torch.logit(u)
    assert float(logits.mean()) == pytest.approx(mean, abs=1e-3)
    assert float(logits.std()) == pytest.approx(std, rel=1e-3)
    normal = torch.distributions.Normal(mean, std)
    assert torch.allclose(normal.cdf(logits), Q, atol=1e-6)


def test_logit_normal_is_that_of_diffusers_on_the_same_draws():
    theirs = compute_density_for_timestep_sampling(
        "logit_normal", batch_size=64, logit_mean=0.3, logit_std=0.7, generator=torch.Generator().manual_seed(3)
    )
    draws = torch.normal(mean=0.3, std=0.7, size=(64,), generator=torch.Generator().manual_seed(3))
    quantiles = torch.special.ndtr((draws.double() - 0.3) / 0.7)
    assert torch.allclose(TimeSampling("logit_normal", mean=0.3, std=0.7)(quantiles).float(), theirs, atol=1e-6)


def test_cosmap_is_the_papers_and_its_density_is_diffusers_weight():
    """Esser et al., eq. 21: t = 1 - 1 / (tan(π/2 u) + 1); eq. 22, its density, is what diffusers weighs flow's loss with."""
    u = TimeSampling("cosmap")(Q)
    assert torch.allclose(u, 1 - 1 / (torch.tan(math.pi / 2 * Q) + 1), atol=1e-12)
    density = (Q[2:] - Q[:-2]) / (u[2:] - u[:-2])
    assert torch.allclose(density, compute_loss_weighting_for_sd3("cosmap", sigmas=u[1:-1]), rtol=1e-6)


@pytest.mark.parametrize("scale", [1.29, 0.5, -0.8])
def test_mode_is_that_of_diffusers_on_the_same_draws(scale):
    theirs = compute_density_for_timestep_sampling(
        "mode", batch_size=64, mode_scale=scale, generator=torch.Generator().manual_seed(3)
    )
    draws = torch.rand(64, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(TimeSampling("mode", scale=scale)(draws), theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "mode", "cosmap"])
def test_times_stay_in_their_range(kind):
    sampling = TimeSampling(kind, low=0.25, high=0.75)
    ends = torch.tensor([0.0, 1e-12, 1 - 1e-12], dtype=torch.float64)
    u = sampling(torch.cat([Q, ends]))
    assert torch.isfinite(u).all()
    assert float(u.min()) >= 0.25 and float(u.max()) <= 0.75
    assert float(u.max() - u.min()) > 0.3
    alphas = torch.linspace(0.999, 0.001, 1000)
    t = Epsilon(sampling, alphas_cumprod=alphas).times(torch.cat([Q, ends]))
    assert t.dtype == torch.long and int(t.min()) >= 250 and int(t.max()) <= 750


def test_discrete_times_are_hit_evenly_and_never_outside():
    objective = Epsilon(alphas_cumprod=torch.linspace(0.999, 0.001, 100))
    assert torch.bincount(objective.times(Q), minlength=100).tolist() == [100] * 100
    assert int(objective.times(torch.tensor([math.nextafter(1, 0)], dtype=torch.float64))) == 99


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_shift_is_that_of_the_flow_schedulers(shift):
    """Esser et al., eq. 23, as `FlowMatchEulerDiscreteScheduler` computes it."""
    sigmas = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas.double()
    even = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    assert torch.allclose(Flow(shift=shift).times(even) / 1000, sigmas, atol=1e-6)


def test_shift_moves_times_towards_noise():
    assert Flow(shift=3.0).times(Q).mean() > Flow().times(Q).mean() + 100


@pytest.mark.parametrize("shift", [None, 1.0, 3.0, 0.4])
@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "cosmap"])
def test_shifted_times_stay_in_the_range_of_noise_that_was_asked_for(kind, shift):
    """`time_low` and `time_high` are shares of noise, whatever the shift; inside, the odds of noise are multiplied by it."""
    sampling = TimeSampling(kind, low=0.25, high=0.75, shift=shift)
    sigma = Flow(sampling, shift=2.0).times(torch.cat([Q, torch.tensor([0.0, 1 - 1e-12])])) / 1000
    assert 0.25 - 1e-9 <= float(sigma.min()) < 0.26 and 0.74 < float(sigma.max()) <= 0.75 + 1e-9
    s = 2.0 if shift is None else shift
    low, high = 0.25 / (s - (s - 1) * 0.25), 0.75 / (s - (s - 1) * 0.75)
    u = low + (high - low) * TimeSampling(kind)(Q)
    assert torch.allclose(sigma[:-2] / (1 - sigma[:-2]), s * u / (1 - u))


def test_a_shift_that_is_asked_for_takes_the_place_of_the_bases():
    assert torch.equal(Flow(TimeSampling(shift=2.0), shift=3.0).times(Q), Flow(shift=2.0).times(Q))
    assert torch.equal(Flow(TimeSampling(shift=1.0), shift=3.0).times(Q), Flow().times(Q))
    assert torch.equal(Flow(TimeSampling(shift=None), shift=3.0).times(Q), Flow(shift=3.0).times(Q))


def test_discrete_times_are_shifted_by_their_share():
    alphas = torch.linspace(0.999, 0.001, 1000)
    t = Epsilon(TimeSampling(shift=3.0), alphas_cumprod=alphas).times(Q)
    share = 3 * Q / (1 + 2 * Q)
    assert torch.equal(t, (share * 1000).long().clamp(max=999))
    assert torch.equal(Epsilon(TimeSampling(shift=1.0), alphas_cumprod=alphas).times(Q), (Q * 1000).long())
    assert torch.bincount(t, minlength=1000)[-1] < 40  # nothing piles up at the end


# ---------------------------------------------------------------------------------------------------------- by resolution
def flow_of(own_dims=(64, 64), **config):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    config = {**scheduler.config, "_class_name": type(scheduler).__name__}
    return objective_of(config, TimeSampling(shift="resolution"), own_dims=own_dims)


def odds(objective, dims):
    sigma = objective.times(Q, dims) / 1000
    return sigma / (1 - sigma)


@pytest.mark.parametrize(
    ("dims", "factor"), [((64, 64), 1.0), ((128, 128), 2.0), ((32, 64), 0.5**0.5), ((16, 64, 64), 4.0)]
)
def test_more_positions_shift_by_the_root_of_their_ratio(dims, factor):
    """Esser et al., below eq. 23: √(m / n), on top of the base's own."""
    found = odds(flow_of(shift=3.0), dims)
    assert torch.allclose(found, 3.0 * factor * Q / (1 - Q), rtol=1e-9)


OTHER = {"base_shift": 0.3, "max_shift": 0.9, "base_image_seq_len": 100, "max_image_seq_len": 900}


@pytest.mark.parametrize("config", [{}, OTHER], ids=["Flux", "other numbers"])
@pytest.mark.parametrize("dims", [(32, 32), (128, 128), (64, 96)], ids=str)
@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shifting_is_that_of_diffusers(config, dims, kind):
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, time_shift_type=kind, **config)
    c = scheduler.config
    mu = calculate_shift(dims[0] * dims[1] // 4, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift)
    found = flow_of(use_dynamic_shifting=True, shift=3.0, time_shift_type=kind, **config).times(Q[1:], dims) / 1000
    assert torch.allclose(found, scheduler.time_shift(mu, 1.0, Q[1:]), rtol=1e-9)


def test_a_dynamic_schedulers_own_shift_is_none():
    """`use_dynamic_shifting` shifts when it draws; its `shift` is not looked at, and diffusers' scripts train unshifted."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    flow = objective_of({**scheduler.config, "_class_name": type(scheduler).__name__}, own_dims=(64, 64))
    even = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    assert torch.allclose(flow.times(even) / 1000, scheduler.sigmas.double(), atol=1e-6)


def test_without_the_size_there_is_no_shift_by_it():
    with pytest.raises(ValueError, match="dims"):
        flow_of().times(Q)


def test_discrete_times_have_no_shift_by_resolution():
    from diffusers import DDPMScheduler

    with pytest.raises(SettingsError, match="time_shift=resolution is for flow"):
        objective_of({**DDPMScheduler().config, "_class_name": "DDPMScheduler"}, TimeSampling(shift="resolution"))
    with pytest.raises(ValueError, match="no shift by resolution"):
        Epsilon(TimeSampling(shift="resolution"), alphas_cumprod=torch.ones(9)).times(Q, (8, 8))
