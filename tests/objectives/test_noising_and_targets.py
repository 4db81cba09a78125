"""Noising, targets and weights are those of diffusers' schedulers and of the papers; each prediction gives x back."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from adapt.errors import BackboneError, SettingsError
from adapt.objectives import (
    PREDICTIONS,
    Epsilon,
    Flow,
    Loss,
    Sample,
    TimeSampling,
    Velocity,
    objective_of,
    weighting,
)

KINDS = [Epsilon, Velocity, Sample]


def _random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=[False, True], ids=["usual", "zero terminal SNR"])
def scheduler(request):
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=request.param
    )


@pytest.fixture
def made(scheduler):
    """kind → the objective that a pipeline with this scheduler was trained with."""
    config = {**scheduler.config, "_class_name": "DDIMScheduler"}
    return lambda kind, **more: objective_of({**config, "prediction_type": kind.prediction_type}, **more)


@pytest.fixture
def sample():
    """x, noise, t over the whole range, both ends included."""
    return _random(9, 4, 3, 3), _random(9, 4, 3, 3, seed=1), torch.tensor([0, 1, 10, 100, 400, 700, 900, 998, 999])


@pytest.mark.parametrize("kind", KINDS)
def test_noising_is_that_of_diffusers(scheduler, made, sample, kind):
    x, noise, t = sample
    assert type(made(kind)) is kind
    assert torch.allclose(made(kind).noised(x, noise, t), scheduler.add_noise(x, noise, t), atol=1e-6)


def test_targets_are_those_of_diffusers(scheduler, made, sample):
    x, noise, t = sample
    assert torch.equal(made(Epsilon).target(x, noise, t), noise)
    assert torch.equal(made(Sample).target(x, noise, t), x)
    assert torch.allclose(made(Velocity).target(x, noise, t), scheduler.get_velocity(x, noise, t), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_gives_the_clean_picture_back(scheduler, made, sample, kind):
    x, noise, t = sample
    objective = made(kind)
    found = objective.clean(objective.noised(x, noise, t), objective.target(x, noise, t), t)
    known = objective.snr(t) > 0 if kind is Epsilon else torch.ones(len(t), dtype=torch.bool)
    # With zero-terminal SNR pure noise says nothing of x, so that epsilon has none there and v is -x.
    assert known.sum() >= 8
    assert torch.allclose(found[known], x[known], atol=1e-4)


def test_predictions_of_one_denoiser_agree_through_the_clean_picture(made, sample):
    """What a denoiser means by x, said as epsilon, v and x: three objectives read the same."""
    guess, x, (_, noise, t) = _random(9, 4, 3, 3, seed=2), sample[0], sample
    t = t.clamp(1, 998)
    x_t = made(Epsilon).noised(x, noise, t)
    signal, sigma = made(Epsilon).scales(t, x_t)
    epsilon = (x_t - signal * guess) / sigma
    said = {Epsilon: epsilon, Velocity: signal * epsilon - sigma * guess, Sample: guess}
    for kind, prediction in said.items():
        assert torch.allclose(made(kind).clean(x_t, prediction, t), guess, atol=1e-3), kind


@pytest.mark.parametrize("kind", KINDS)
def test_signal_to_noise_ratio_is_that_of_diffusers(scheduler, made, kind):
    t = torch.tensor([0, 1, 10, 100, 500, 998, 999])
    assert torch.allclose(made(kind).snr(t), compute_snr(scheduler, t), rtol=1e-4)


def test_flow_is_that_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(50)
    t = scheduler.timesteps[::7]
    x, noise = _random(len(t), 4, 3, 3, dtype=torch.float32), _random(len(t), 4, 3, 3, seed=1, dtype=torch.float32)
    flow = objective_of({**scheduler.config, "_class_name": type(scheduler).__name__})
    assert isinstance(flow, Flow) and flow.shift == 3.0
    x_t = flow.noised(x, noise, t)
    assert torch.allclose(x_t, scheduler.scale_noise(x, t, noise), atol=1e-5)
    assert torch.allclose(flow.clean(x_t, flow.target(x, noise, t), t), x, atol=1e-4)
    # One Euler step with the target from σ to 0 is the picture.
    assert torch.allclose(x_t - (t / 1000).view(-1, 1, 1, 1) * flow.target(x, noise, t), x, atol=1e-4)


def test_the_target_is_the_derivative_of_the_path():
    """v along the circle, flow along the line: both by finite differences."""
    x, noise = _random(1, 8), _random(1, 8, seed=1)
    flow, (a, b) = Flow(), (torch.tensor([500.0]), torch.tensor([500.5]))
    slope = (flow.noised(x, noise, b.double()) - flow.noised(x, noise, a.double())) / 0.0005
    assert torch.allclose(flow.target(x, noise, a), slope, atol=1e-6)
    angles = torch.tensor([0.7, 0.7001], dtype=torch.float64)
    velocity = Velocity(alphas_cumprod=angles.cos().square())
    steps = [velocity.noised(x, noise, torch.tensor([i])) for i in (0, 1)]
    assert torch.allclose(velocity.target(x, noise, torch.tensor([0])), (steps[1] - steps[0]) / 1e-4, atol=1e-3)


def test_loss_is_a_mean_over_everything_but_the_rows_and_in_fp32(made):
    prediction, target = _random(3, 4, 2, 2).half(), _random(3, 4, 2, 2, seed=1).half()
    losses = made(Epsilon).losses(prediction, target, torch.tensor([1, 2, 3]))
    assert losses.dtype == torch.float32
    assert torch.allclose(losses, (prediction - target).float().square().mean((1, 2, 3)))


def test_an_objective_has_the_times_weights_and_loss_that_were_asked_for(scheduler):
    asked = (TimeSampling("mode"), weighting("p2"), Loss("huber"))
    flow = FlowMatchEulerDiscreteScheduler()
    for config in (
        {**flow.config, "_class_name": type(flow).__name__},
        {**scheduler.config, "_class_name": "DDIMScheduler"},
    ):
        objective = objective_of(config, *asked)
        assert (objective.sampling, objective.weighting, objective.loss) == asked


@pytest.mark.parametrize("kind", [Velocity, Sample])
def test_the_rescaled_schedule_is_that_of_diffusers_and_of_the_paper(kind):
    usual = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    config = {**usual.config, "_class_name": "DDIMScheduler", "prediction_type": kind.prediction_type}
    rescaled = objective_of(config, zero_terminal_snr=True).alphas_cumprod
    theirs = DDPMScheduler.from_config(usual.config, rescale_betas_zero_snr=True).alphas_cumprod
    assert torch.equal(rescaled, theirs)
    root = usual.alphas_cumprod.double().sqrt()  # Lin et al., algorithm 1
    paper = (root - root[-1]) * root[0] / (root[0] - root[-1])
    assert torch.allclose(rescaled.double().sqrt(), paper, atol=1e-4)
    assert rescaled[-1] == 0 and rescaled[0] == pytest.approx(float(usual.alphas_cumprod[0]), rel=1e-5)
    assert torch.equal(objective_of(config).alphas_cumprod, usual.alphas_cumprod)
    again = objective_of({**config, "rescale_betas_zero_snr": True}, zero_terminal_snr=True).alphas_cumprod
    assert torch.equal(again, rescaled)  # a base that has it already is not rescaled twice


def test_rescaling_is_refused_where_it_makes_no_sense():
    usual = {**DDPMScheduler().config, "_class_name": "DDIMScheduler", "prediction_type": "epsilon"}
    with pytest.raises(SettingsError, match="predicts v or x"):
        objective_of(usual, zero_terminal_snr=True)
    flow = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(SettingsError, match="ends in pure noise"):
        objective_of({**flow.config, "_class_name": type(flow).__name__}, zero_terminal_snr=True)


def test_a_pipeline_says_what_it_was_trained_with(scheduler):
    for name, kind in PREDICTIONS.items():
        objective = objective_of({**scheduler.config, "_class_name": "EulerDiscreteScheduler", "prediction_type": name})
        assert type(objective) is kind
        assert torch.allclose(objective.alphas_cumprod, scheduler.alphas_cumprod)
    multistep = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 2.0}
    assert objective_of({**multistep, "num_train_timesteps": 1000}).shift == 2.0
    with pytest.raises(BackboneError, match="prediction type"):
        objective_of({**scheduler.config, "_class_name": "DDIMScheduler", "prediction_type": "score"})
