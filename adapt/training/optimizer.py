"""AdamW, its learning rate as a function of the step, and the update with its checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from adapt.config import TrainSettings


def make(settings: TrainSettings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
    )


def learning_rate(settings: TrainSettings) -> Callable[[int], float]:
    """Step → learning rate. diffusers' schedules, asked as pure functions: there is no state to save."""
    from diffusers.optimization import get_scheduler

    probe = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    warmup = min(settings.warmup, settings.steps)
    schedule = get_scheduler(settings.schedule, probe, num_warmup_steps=warmup, num_training_steps=settings.steps)
    factor = schedule.lr_lambdas[0]
    # diffusers starts warm-up at 0, which would waste a step: ours is the rate at the end of the step.
    shift = 1 if warmup and settings.schedule != "constant" else 0
    return lambda step: settings.learning_rate * float(factor(min(step + shift, max(settings.steps - 1, warmup))))


def clip(parameters: Sequence[nn.Parameter], longest: float) -> float:
    """Shortens the gradient to `longest` and returns the norm that it had (not finite: nothing is to be applied)."""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, longest))
    return norm if math.isfinite(norm) else math.nan
