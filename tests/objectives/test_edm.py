"""EDM's parametrisation against diffusers' schedulers, its DreamBooth script's formula and the paper's table 1."""

import diffusers
import pytest
import torch

from adapt.errors import SettingsError
from adapt.objectives import Edm, TimeSampling, objective_of, weighting

SCHEDULERS = {
    "dpm": lambda **more: diffusers.EDMDPMSolverMultistepScheduler(**more),
    "euler": lambda **more: diffusers.EDMEulerScheduler(**more),
}
MORE = {
    "playground": {},
    "v": {"prediction_type": "v_prediction", "sigma_data": 1.0},
    "cosxl": {
        "sigma_schedule": "exponential",
        "sigma_max": 120.0,
        "sigma_data": 1.0,
        "prediction_type": "v_prediction",
    },
}
every = [
    pytest.param(made, more, id=f"{name}-{kind}") for name, made in SCHEDULERS.items() for kind, more in MORE.items()
]


def objective(scheduler, sampling=TimeSampling(), **more):
    return objective_of({**scheduler.config, "_class_name": type(scheduler).__name__}, sampling, **more)


@pytest.fixture
def pictures():
    numbers = torch.Generator().manual_seed(0)
    return (torch.randn(5, 4, 6, 6, generator=numbers) * k for k in (0.5, 1.0, 1.0))


@pytest.mark.parametrize(("made", "more"), every)
def test_times_are_the_schedulers_and_share_is_the_way_back(made, more):
    scheduler = made(**more)
    edm, u = objective(scheduler), torch.linspace(1, 0, len(scheduler.timesteps), dtype=torch.float64)
    torch.testing.assert_close(edm.times(u).float(), scheduler.timesteps, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(edm.share(edm.times(u)), u, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("made", "more"), every)
def test_what_is_shown_and_what_it_stands_for_are_the_schedulers(made, more, pictures):
    """`precondition_inputs`, `precondition_outputs` and `add_noise`; a perfect network gives the picture back."""
    scheduler, (x, noise, guess) = made(**more), pictures
    edm, t = objective(scheduler), scheduler.timesteps[[0, 300, 500, 800, 998]]
    sigma = scheduler.sigmas[[0, 300, 500, 800, 998]].view(-1, 1, 1, 1)
    noisy = scheduler.add_noise(x, noise, t)
    torch.testing.assert_close(
        edm.noised(x, noise, t), scheduler.precondition_inputs(noisy, sigma), atol=1e-4, rtol=1e-4
    )
    theirs = scheduler.precondition_outputs(noisy, guess, sigma)
    torch.testing.assert_close(edm.clean(edm.noised(x, noise, t), guess, t), theirs, atol=1e-4, rtol=1e-4)
    perfect = edm.target(x.double(), noise.double(), t)
    again = edm.clean(edm.noised(x.double(), noise.double(), t), perfect, t)
    torch.testing.assert_close(again, x.double(), atol=1e-6, rtol=0)


def test_the_loss_is_the_papers_and_the_scripts_up_to_its_weight(pictures):
    """diffusers' script compares D with x at a weight of 1; the paper at λ = (σ² + σ_data²) / (σ σ_data)²: F with its target."""
    scheduler, (x, noise, guess) = SCHEDULERS["dpm"](), pictures
    edm, t = objective(scheduler), scheduler.timesteps[[100, 300, 500, 700, 900]]
    sigma = scheduler.sigmas[[100, 300, 500, 700, 900]]
    ours = edm.losses(guess, edm.target(x, noise, t), t)
    wide = sigma.view(-1, 1, 1, 1)
    scripts = (
        (scheduler.precondition_outputs(scheduler.add_noise(x, noise, t), guess, wide) - x).square().flatten(1).mean(1)
    )
    papers = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(ours, papers * scripts, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(edm.error_of_x(edm.snr(t)), papers, rtol=1e-4, atol=0)
    even = objective(scheduler, weighting=lambda snr: torch.ones_like(snr))  # weights are told for the error of x
    middle = slice(1, 4)
    torch.testing.assert_close(
        even.losses(guess, even.target(x, noise, t), t)[middle], scripts[middle], atol=1e-4, rtol=1e-3
    )
    assert bool(objective(scheduler, weighting=weighting("min_snr", 5.0, 1.0, 1.0)).weight(t).isfinite().all())


def test_log_normal_is_the_papers_density_inside_the_trained_range():
    q = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    logs = 4 * Edm(TimeSampling("log_normal")).times(q)
    assert float(logs.mean()) == pytest.approx(-1.2, abs=1e-2) and float(logs.std()) == pytest.approx(1.2, abs=1e-2)
    part = Edm(TimeSampling("log_normal", low=0.3, high=0.6))
    shares = part.share(part.times(q))
    assert 0.3 <= float(shares.min()) < 0.301 and 0.599 < float(shares.max()) <= 0.6


@pytest.mark.parametrize(
    ("scheduler", "asked", "said"),
    [
        (diffusers.DDPMScheduler(), {"sampling": TimeSampling("log_normal")}, "noise levels of EDM"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), {"sampling": TimeSampling("log_normal")}, "noise levels of EDM"),
        (SCHEDULERS["dpm"](), {"sampling": TimeSampling(shift="resolution")}, "time_shift=resolution"),
        (SCHEDULERS["dpm"](), {"zero_terminal_snr": True}, "zero_terminal_snr"),
    ],
)
def test_what_makes_no_sense_is_refused(scheduler, asked, said):
    with pytest.raises(SettingsError, match=said):
        objective(scheduler, **asked)
