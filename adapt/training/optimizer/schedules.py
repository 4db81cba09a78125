"""The learning rate as a pure function of the step: there is no state to save, and a resumed run cannot lose its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from adapt.config import TrainSettings

Rate = Callable[[int], float]
"""Step, from 0 → learning rate."""


def learning_rate(settings: TrainSettings) -> Rate:
    """The schedule that the settings name, over the whole run; `warmup` is never longer than that."""
    warmup = min(settings.warmup, settings.steps) if settings.warms_up else 0
    factor = rex(warmup, settings.steps) if settings.schedule == "rex" else _of_diffusers(settings, warmup)
    # diffusers starts warm-up at 0, which would waste a step: ours is the rate at the end of the step.
    shift, last = 1 if warmup else 0, settings.steps - 1

    def rate(step: int) -> float:
        share = (step + 1) / warmup if step < warmup else float(factor(min(step + shift, last)))
        return settings.learning_rate * share

    return rate


def rex(warmup: int, steps: int) -> Rate:
    """Reflected exponential (Chen, Wolfe & Kyrillidis 2021, arXiv 2107.04197, section 4): with z = t / T after warm-up,
    (1 - z) / (1/2 + (1 - z) / 2). It stays high for longer than cosine and linear, and falls to 0 at the end."""

    def factor(step: int) -> float:
        left = 1 - (step - warmup) / (steps - warmup)
        return left / (0.5 + 0.5 * left)

    return factor


def _of_diffusers(settings: TrainSettings, warmup: int) -> Rate:
    """Share of the highest rate by step, from diffusers' schedules, asked as functions."""
    from diffusers.optimization import get_scheduler

    probe = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    schedule = get_scheduler(
        settings.schedule, probe, num_warmup_steps=warmup, num_training_steps=settings.steps,
        num_cycles=settings.schedule_cycles, power=settings.schedule_power,
    )  # fmt: skip
    factor: Rate = schedule.lr_lambdas[0]
    return factor
