"""Even quantiles become times of the wanted density, inside the wanted range."""

import math

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from adapt.objectives import Epsilon, Flow, TimeSampling

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


@pytest.mark.parametrize("scale", [1.29, 0.5, -0.8])
def test_mode_is_that_of_diffusers_on_the_same_draws(scale):
    theirs = compute_density_for_timestep_sampling(
        "mode", batch_size=64, mode_scale=scale, generator=torch.Generator().manual_seed(3)
    )
    draws = torch.rand(64, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(TimeSampling("mode", scale=scale)(draws), theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "mode"])
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
    from diffusers import FlowMatchEulerDiscreteScheduler

    sigmas = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas.double()
    even = torch.arange(1000, 0, -1, dtype=torch.float64) / 1000
    assert torch.allclose(Flow(shift=shift).times(even) / 1000, sigmas, atol=1e-6)


def test_shift_moves_times_towards_noise():
    assert Flow(shift=3.0).times(Q).mean() > Flow().times(Q).mean() + 100
