"""The denoising loop: the same for every family, scheduler, guidance and start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.sampling.noise import Noise
from adapt.sampling.starts import Start
from adapt.sampling.stepper import Stepper
from conditioning import Condition, Guidance, Moment, Predictor

Progress = Callable[[int, int], None]
"""`progress(done, total)`: called after each step."""


NONE: Mapping[str, Predictor] = {}
"""No predictors beside the backbone's own."""


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


@torch.no_grad()
def denoise(
    predict: Predictor,
    stepper: Stepper,
    guidance: Guidance,
    start: Start,
    noise: Noise,
    condition: Condition,
    negative: Condition,
    progress: Progress = silent,
    others: Mapping[str, Predictor] = NONE,
) -> Tensor:
    """From a start to clean latents.

    Args:
        predict: the backbone's.
        condition: what is drawn, one row a picture.
        negative: what is kept away from, one row a picture; not looked at where guidance is off.
        others: predictors that the guidance compares with, by name.

    Returns:
        Latents (B, C, *dims).
    """
    x_t, times, keep = start(stepper, noise)
    reached = [*times[1:], None]
    memory: dict[str, Any] = {}
    predictors = {"main": predict, **others}
    for index, (t, next_t) in enumerate(zip(times, reached, strict=True)):
        moment = Moment(index, len(times), t, memory)
        prediction = guidance(predictors, stepper.scaled(x_t, t), moment, condition, negative)
        x_t = stepper.step(prediction, t, x_t)
        x_t = keep(x_t, next_t)
        progress(index + 1, len(times))
    return x_t
