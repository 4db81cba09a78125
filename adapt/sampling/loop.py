"""The denoising loop: the same for every family, scheduler, guidance and start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adapt.sampling.noise import Noise
from adapt.sampling.starts import Start
from adapt.sampling.stepper import Stepper
from conditioning import Condition, Guidance, Moment, Predictor

Progress = Callable[[int, int], None]
"""`progress(done, total)`: called after each step."""


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
) -> Tensor:
    """From a start to clean latents.

    Args:
        predict: the backbone's.
        condition: what is drawn, one row a picture.
        negative: what is kept away from, one row a picture; not looked at where guidance is off.

    Returns:
        Latents (B, C, *dims).
    """
    x_t, times, keep = start(stepper, noise)
    reached = [*times[1:], None]
    for index, (t, next_t) in enumerate(zip(times, reached, strict=True)):
        moment = Moment(index, len(times), t)
        prediction = guidance({"main": predict}, stepper.scaled(x_t, t), moment, condition, negative)
        x_t = stepper.step(prediction, t, x_t)
        x_t = keep(x_t, next_t)
        progress(index + 1, len(times))
    return x_t
