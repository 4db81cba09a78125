"""Weights are those of the papers and of diffusers, mean the same for every prediction, and are finite at every SNR."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_loss_weighting_for_sd3, compute_snr

from adapt.objectives import Epsilon, Flow, Sample, Velocity, objective_of, weighting

DISCRETE = [Epsilon, Velocity, Sample]
WEIGHTINGS = {
    "min_snr": weighting("min_snr", gamma=5.0),
    "min_snr 1": weighting("min_snr", gamma=1.0),
    "soft_min_snr": weighting("soft_min_snr", gamma=4.0),
    "debiased": weighting("debiased"),
    "p2": weighting("p2"),
    "p2 0.5": weighting("p2", p2_gamma=0.5, p2_k=2.0),
    "sigma_sqrt": weighting("sigma_sqrt"),
    "cosmap": weighting("cosmap"),
}
PAPERS = {  # for epsilon, as function of the SNR
    "min_snr": lambda snr: snr.clamp(max=5.0) / snr,
    "min_snr 1": lambda snr: snr.clamp(max=1.0) / snr,
    "soft_min_snr": lambda snr: 4.0 / (snr + 4.0),
    "debiased": lambda snr: 1 / snr.sqrt(),
    "p2": lambda snr: 1 / (1 + snr),
    "p2 0.5": lambda snr: 1 / (2 + snr).sqrt(),
}
UNITS = {Epsilon: lambda snr: snr, Velocity: lambda snr: snr + 1, Sample: torch.ones_like}


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=[False, True], ids=["usual", "zero terminal SNR"])
def scheduler(request):
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=request.param
    )


@pytest.fixture
def made(scheduler):
    """kind, name → the objective of a pipeline with this scheduler, so weighted."""
    config = {**scheduler.config, "_class_name": "DDIMScheduler"}

    def make(kind, name):
        if kind is Flow:
            return Flow(weighting=WEIGHTINGS[name])
        return objective_of({**config, "prediction_type": kind.prediction_type}, weighting=WEIGHTINGS[name])

    return make


@pytest.mark.parametrize("name", sorted(PAPERS))
@pytest.mark.parametrize("kind", DISCRETE)
def test_weights_are_those_of_the_papers(scheduler, made, kind, name):
    t = torch.arange(1000)
    snr, weight = compute_snr(scheduler, t).double(), made(kind, name).weight(t).double()
    inside = snr > (1e-6 if name == "debiased" else 0)
    paper = (PAPERS[name](snr) * snr / UNITS[kind](snr))[inside]
    assert inside.sum() >= (997 if name == "debiased" else 999)
    assert torch.allclose(weight[inside], paper, rtol=1e-4)


def test_v_prediction_is_weighted_as_diffusers_scripts_and_kohya_do(scheduler, made):
    """min(SNR, γ) / (SNR + 1)."""
    t = torch.arange(1000)
    snr = compute_snr(scheduler, t)
    assert torch.allclose(made(Velocity, "min_snr").weight(t), snr.clamp(max=5.0) / (snr + 1), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["sigma_sqrt", "cosmap"])
def test_weights_of_a_flow_are_those_of_diffusers(name):
    sigma = torch.linspace(0.001, 1.0, 1000, dtype=torch.float64)
    theirs = compute_loss_weighting_for_sd3(name, sigmas=sigma).double()
    assert torch.allclose(made_flow(name).weight(sigma * 1000).double(), theirs, rtol=1e-4)


def made_flow(name):
    return Flow(weighting=WEIGHTINGS[name])


def test_min_snr_of_a_flow_weighs_the_error_of_x():
    """The error of x is σ² times that of the flow: min(SNR, γ) σ², with SNR = (1 - σ)² / σ²."""
    sigma = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    paper = (((1 - sigma) / sigma) ** 2).clamp(max=5.0) * sigma**2
    assert torch.allclose(made_flow("min_snr").weight(sigma * 1000).double(), paper, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@pytest.mark.parametrize("kind", [*DISCRETE, Flow])
def test_the_same_error_of_x_weighs_the_same_whatever_is_predicted(made, kind, name):
    objective = made(kind, name)
    x, noise, t = _random(6, 4, 3, 3), _random(6, 4, 3, 3, seed=1), torch.tensor([5, 50, 200, 500, 800, 950])
    x_t, target = objective.noised(x, noise, t), objective.target(x, noise, t)
    prediction = target + 0.1 * _random(6, 4, 3, 3, seed=2)
    error = (objective.clean(x_t, prediction, t) - x).square().flatten(1).mean(1)
    expected = WEIGHTINGS[name](objective.snr(t).double()) * error
    assert torch.allclose(objective.losses(prediction, target, t), expected, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@pytest.mark.parametrize("kind", [*DISCRETE, Flow])
def test_weights_are_finite_and_not_negative_at_every_time(made, kind, name):
    t = torch.linspace(0, 1000, 1001, dtype=torch.float64) if kind is Flow else torch.arange(1000)
    weight = made(kind, name).weight(t)
    assert weight.dtype == torch.float32
    assert torch.isfinite(weight).all() and (weight >= 0).all()


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_a_loss_at_infinite_snr_is_finite(name):
    """ᾱ = 1 exactly, and a flow's time 0."""
    x, target = _random(1, 4), _random(1, 4, seed=1)
    for kind in DISCRETE:
        objective = kind(weighting=WEIGHTINGS[name], alphas_cumprod=torch.ones(1))
        assert torch.isfinite(objective.losses(x, target, torch.tensor([0]))).all()
    assert torch.isfinite(made_flow(name).losses(x, target, torch.tensor([0.0]))).all()


def test_at_an_snr_of_0_the_limits_are_taken(made):
    """min(SNR, γ) / SNR is 1 there; what has no limit stays moderate."""
    last = torch.tensor([999])
    for kind, name, limit in [(Epsilon, "min_snr", 1.0), (Epsilon, "soft_min_snr", 1.0), (Velocity, "min_snr", 0.0)]:
        objective = made(kind, name)
        if objective.snr(last) == 0:
            assert float(objective.weight(last)) == pytest.approx(limit)
            assert float(made(Epsilon, "debiased").weight(last)) == pytest.approx(0.0, abs=1000)


def test_p2_without_gamma_is_the_plain_loss_of_epsilon():
    plain, p2 = (
        Epsilon(weighting=w, alphas_cumprod=torch.linspace(0.99, 0.01, 10))
        for w in (None, weighting("p2", p2_gamma=0.0))
    )
    assert torch.allclose(p2.weight(torch.arange(10)), plain.weight(torch.arange(10)))


def test_without_a_weighting_the_weight_is_one():
    alphas = torch.linspace(0.99, 0.0, 1000)
    assert weighting("none") is None
    assert Velocity(alphas_cumprod=alphas).weight(torch.arange(1000)).eq(1).all()
    assert Flow().weight(torch.rand(5) * 1000).eq(1).all()


def test_soft_min_snr_is_below_min_snr_and_meets_it_far_away():
    snr = torch.logspace(-4, 4, 50)
    hard, soft = (weighting(name, gamma=5.0)(snr) for name in ("min_snr", "soft_min_snr"))
    assert (soft < hard).all()
    assert torch.allclose(soft[[0, -1]], hard[[0, -1]], rtol=1e-3)
    assert float(soft[(snr - 5).abs().argmin()]) == pytest.approx(2.5, rel=0.2)


def test_sigma_sqrt_grows_no_further_than_at_the_first_of_1000_times():
    weight = made_flow("sigma_sqrt").weight(torch.tensor([0.0, 1e-3, 1.0, 2.0]))
    assert torch.allclose(weight, torch.tensor([1e6, 1e6, 1e6, 2.5e5]), rtol=1e-3)


def test_cosmap_weighs_the_middle_most():
    weight = made_flow("cosmap").weight(torch.tensor([0.0, 500.0, 1000.0]))
    assert torch.allclose(weight, torch.tensor([2 / math.pi, 4 / math.pi, 2 / math.pi]), rtol=1e-3)
