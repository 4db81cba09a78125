"""Where a picture starts from: noise, another picture, or another picture with a hole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from adapt.sampling.noise import Noise
from adapt.sampling.stepper import Stepper

Keep = Callable[[Tensor, Tensor | None], Tensor]
"""`keep(x_t, t) -> x_t`: what is done after a step; t is the time that was reached, None at the end."""


class Beginning(NamedTuple):
    """Attributes:
    x_t: (B, C, *dims), in the scheduler's own scale.
    times: what is left to do.
    keep: see `Keep`.
    """

    x_t: Tensor
    times: Tensor
    keep: Keep


class Start(Protocol):
    """`start(stepper, noise) -> Beginning`."""

    def __call__(self, stepper: Stepper, noise: Noise) -> Beginning: ...


def _as_it_is(x_t: Tensor, t: Tensor | None) -> Tensor:
    return x_t


@dataclass(frozen=True)
class FromNoise:
    """Text to image.

    Attributes:
        shape: (C, *dims) of a latent.
    """

    shape: tuple[int, ...]

    def __call__(self, stepper: Stepper, noise: Noise) -> Beginning:
        return Beginning(noise(self.shape) * stepper.init_noise_sigma, stepper.times, _as_it_is)


@dataclass(frozen=True)
class Posterior:
    """What an autoencoder says of one picture.

    Attributes:
        mean, std: (1, C, *dims), scaled.
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Noise) -> Tensor:
        """One draw a picture of the batch: (B, C, *dims)."""
        return self.mean + self.std * noise(self.mean.shape[1:])


@dataclass(frozen=True)
class FromImage:
    """Image to image: the picture, noised part of the way (SDEdit, Meng et al. 2021, arXiv 2108.01073).

    Attributes:
        strength: share of the way, 0 < strength ≤ 1; 1 keeps almost nothing.
    """

    image: Posterior
    strength: float

    def __call__(self, stepper: Stepper, noise: Noise) -> Beginning:
        times = stepper.times_from(self.strength)
        x = self.image.sample(noise)
        return Beginning(stepper.noised(x, noise(x.shape[1:]), times[0]), times, _as_it_is)


@dataclass(frozen=True)
class Repaint:
    """Inpainting with a plain text-to-image model: after each step the original, noised as far, is put back outside the
    hole; after the last, the original itself (Lugmayr et al. 2022, arXiv 2201.09865, eq. 8, without resampling).

    Attributes:
        mask: (1, 1, *dims), 1 where it is repainted.
        strength: as in `FromImage`; at 1 it starts from pure noise.
    """

    image: Posterior
    mask: Tensor
    strength: float

    def __call__(self, stepper: Stepper, noise: Noise) -> Beginning:
        times = stepper.times_from(self.strength)
        x = self.image.sample(noise)
        epsilon = noise(x.shape[1:])
        x_t = epsilon * stepper.init_noise_sigma if self.strength == 1 else stepper.noised(x, epsilon, times[0])

        def keep(x_t: Tensor, t: Tensor | None) -> Tensor:
            original = x if t is None else stepper.noised(x, epsilon, t)
            return (1 - self.mask) * original + self.mask * x_t

        return Beginning(x_t, times, keep)
