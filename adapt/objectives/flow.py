"""Rectified flow: x_σ = (1 - σ) x + σ noise, target noise - x, t = T σ (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from adapt.objectives.base import Objective, rows
from adapt.objectives.shift import BySize


@dataclass(frozen=True, eq=False)
class Flow(Objective):
    """Attributes:
    shift: the base's own shift s of the times, σ = s u / (1 + (s - 1) u) (arXiv 2403.03206, eq. 23).
    train_times: T; the denoiser is told t = T σ in [0, T].
    by_size: the base's shift for latents of other sizes; needed for a shift by resolution.
    """

    shift: float = 1.0
    train_times: int = 1000
    by_size: BySize | None = None

    prediction_type = "flow"

    def times(self, quantiles: Tensor, dims: Sequence[int] = ()) -> Tensor:
        return self.sampling(quantiles, self._shift(dims)) * self.train_times

    def _shift(self, dims: Sequence[int]) -> float:
        if self.sampling.shift != "resolution":
            return self.shift if self.sampling.shift is None else self.sampling.shift
        if self.by_size is None or not dims:
            raise ValueError("a shift by resolution needs `by_size` and the dims of the latents")
        return self.by_size(dims)

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

    def error_of_x(self, snr: Tensor) -> Tensor:
        # The error of x is σ times that of the flow, and σ = 1 / (1 + √snr).
        return (1 + snr.sqrt()).square()
