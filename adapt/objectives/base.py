"""What a denoiser learns: times, noising, target, weight and loss of one objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.objectives.losses import Loss, mean
from adapt.objectives.times import TimeSampling
from adapt.objectives.weights import HIGHEST, LOWEST, Weighting


def rows(values: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, …, 1) in the dtype and on the device of `like`, so that it multiplies `like`."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Objective(ABC):
    """Base of all objectives. `x` is clean, `x_t` noised; both (B, C, *dims); `t` is (B,) in the denoiser's own unit.

    Attributes:
        sampling: from even quantiles to times.
        weighting: from signal-to-noise ratio to the weight of the error of x; None for a weight of 1.
        loss: what an error costs; None for its square.
    """

    sampling: TimeSampling = TimeSampling()
    weighting: Weighting | None = None
    loss: Loss | None = None

    prediction_type = ""

    @abstractmethod
    def times(self, quantiles: Tensor, dims: Sequence[int] = ()) -> Tensor:
        """Even quantiles in [0, 1) (B,) → t (B,).

        Args:
            dims: of the latents; needed where times are shifted by resolution.
        """

    @abstractmethod
    def share(self, t: Tensor) -> Tensor:
        """t → share of the way to pure noise, 0 … 1."""

    @abstractmethod
    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t."""

    @abstractmethod
    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a perfect denoiser predicts at x_t."""

    @abstractmethod
    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The x that a prediction stands for."""

    @abstractmethod
    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio at t (B,), 0 … ∞."""

    @abstractmethod
    def error_of_x(self, snr: Tensor) -> Tensor:
        """How large a squared error of this prediction is that stands for a squared error of 1 of x (B,)."""

    def weight(self, t: Tensor) -> Tensor:
        """Weight of each row's loss (B,), fp32, finite."""
        if self.weighting is None:
            return torch.ones_like(t, dtype=torch.float32)
        snr = self.snr(t).float().clamp(LOWEST, HIGHEST)
        return self.weighting(snr) / self.error_of_x(snr)

    def losses(self, prediction: Tensor, target: Tensor, t: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted mean loss of each row (B,); fp32, or fp64 where the prediction is.

        Args:
            weight: 0 … 1, broadcasts to x: which part of the picture counts, (B, 1, *dims) say. The mean is over the
                weighted area (see `losses.mean`), so that a weight of all ones changes nothing.
        """
        error = (prediction - target).to(torch.promote_types(prediction.dtype, torch.float32))
        return mean(self._cost(error, t), weight) * self.weight(t).to(error.device)

    def _cost(self, error: Tensor, t: Tensor) -> Tensor:
        if self.loss is None:
            return error.square()
        return self.loss(error, rows(self.loss.threshold(self.share(t), self.snr(t)), error))
