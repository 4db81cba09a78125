"""Rectified flow: x_σ = (1 - σ) x + σ noise, target noise - x, t = T σ (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adapt.objectives.base import Objective, rows


@dataclass(frozen=True, eq=False)
class Flow(Objective):
    """Attributes:
    shift: static shift s of the times, σ = s u / (1 + (s - 1) u) (arXiv 2403.03206, eq. 23).
    train_times: T; the denoiser is told t = T σ in [0, T].
    """

    shift: float = 1.0
    train_times: int = 1000

    prediction_type = "flow"

    def times(self, quantiles: Tensor) -> Tensor:
        u = self.sampling(quantiles)
        return self.shift * u / (1 + (self.shift - 1) * u) * self.train_times

    def share(self, t: Tensor) -> Tensor:
        return t / self.train_times

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma = rows(self.share(t), x)
        return (1 - sigma) * x + sigma * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return x_t - rows(self.share(t), x_t) * prediction

    def snr(self, t: Tensor) -> Tensor:
        sigma = self.share(t)
        return ((1 - sigma) / sigma).square()

    def min_snr_weight(self, snr: Tensor, gamma: float) -> Tensor:
        # The error of x is σ² times that of the flow, and σ = 1 / (1 + √snr).
        return snr.clamp(max=gamma) / (1 + snr.sqrt()).square()
