"""With the exact denoiser of Gaussian data, the loop ends in that Gaussian."""

import pytest
import torch

from adapt.objectives import objective_of
from adapt.sampling import schedulers
from adapt.sampling.loop import denoise
from adapt.sampling.noise import Noise, generator_of
from adapt.sampling.starts import FromNoise
from adapt.sampling.stepper import Stepper
from conditioning import ClassifierFreeGuidance, Condition

MEAN, STD = 0.4, 0.5
VP = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}


def drawn(config, scheduler, predict, steps=60):
    generators = [generator_of(s) for s in range(4)]
    stepper = Stepper(schedulers.build(scheduler, config), steps, generators, torch.device("cpu"))
    noise = Noise(generators, torch.device("cpu"), torch.float64)
    return denoise(predict, stepper, ClassifierFreeGuidance(), FromNoise((1, 64, 64)), noise, Condition(), Condition())


def assert_gaussian(x):
    assert abs(x.mean().item() - MEAN) < 0.02
    assert abs(x.std().item() - STD) < 0.02


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm++2m", "dpm++2m_sde", "unipc", "deis"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_diffusion_hits_mean_and_deviation(prediction_type, scheduler):
    config = {**VP, "prediction_type": prediction_type}
    objective = objective_of(config)

    def predict(x_t, t, condition):
        alpha = objective.alphas_cumprod[t.long()].view(-1, 1, 1, 1).double()
        share = (x_t - alpha.sqrt() * MEAN) / (alpha * STD**2 + 1 - alpha)
        x, noise = MEAN + alpha.sqrt() * STD**2 * share, (1 - alpha).sqrt() * share
        return objective.target(x, noise, t)

    # DDPM is a first-order chain with the smaller variance: it needs many steps.
    assert_gaussian(drawn(config, scheduler, predict, steps=400 if scheduler == "ddpm" else 60))


@pytest.mark.parametrize("scheduler", ["flow_euler", "flow_heun", "dpm++2m", "unipc", "deis", None])
def test_flow_hits_mean_and_deviation(scheduler):
    objective = objective_of(FLOW)

    def predict(x_t, t, condition):
        sigma = (t / 1000).view(-1, 1, 1, 1).double()
        share = (x_t - (1 - sigma) * MEAN) / ((1 - sigma) ** 2 * STD**2 + sigma**2)
        return objective.target(MEAN + (1 - sigma) * STD**2 * share, sigma * share, t)

    assert_gaussian(drawn(FLOW, scheduler, predict))
