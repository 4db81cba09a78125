"""What a denoiser learns: times, noising, target, weight and loss of one objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.objectives.times import TimeSampling


def rows(values: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, …, 1) in the dtype and on the device of `like`, so that it multiplies `like`."""
    return values.to(like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Objective(ABC):
    """Base of all objectives. `x` is clean, `x_t` noised; both (B, C, *dims); `t` is (B,) in the denoiser's own unit.

    Attributes:
        sampling: from even quantiles to times.
        min_snr_gamma: γ of min-SNR weighting, or None for a weight of 1 (Hang et al. 2023, arXiv 2303.09556).
    """

    sampling: TimeSampling = TimeSampling()
    min_snr_gamma: float | None = None

    prediction_type = ""

    @abstractmethod
    def times(self, quantiles: Tensor) -> Tensor:
        """Even quantiles in [0, 1) (B,) → t (B,)."""

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
    def min_snr_weight(self, snr: Tensor, gamma: float) -> Tensor:
        """min(snr, γ) in the units of this prediction's loss (arXiv 2303.09556, section 3.4)."""

    def weight(self, t: Tensor) -> Tensor:
        """Weight of each row's loss (B,), fp32."""
        if self.min_snr_gamma is None:
            return torch.ones_like(t, dtype=torch.float32)
        return self.min_snr_weight(self.snr(t).float(), self.min_snr_gamma)

    def losses(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """Weighted mean squared error of each row (B,); fp32, or fp64 where the prediction is."""
        squares = (prediction - target).to(torch.promote_types(prediction.dtype, torch.float32)).square()
        return squares.flatten(1).mean(1) * self.weight(t).to(squares.device)
