"""v prediction on a quarter circle: x_t = cos(πt/2) x + sin(πt/2) noise (Salimans & Ho 2022, arXiv 2202.00512; Stable Audio)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from adapt.objectives.base import Objective, rows


@dataclass(frozen=True, eq=False)
class Trigonometric(Objective):
    """t in [0, 1]: 0 is clean, 1 pure noise; the denoiser predicts v = cos(πt/2) noise - sin(πt/2) x."""

    prediction_type = "v_prediction"

    def times(self, quantiles: Tensor, dims: Sequence[int] = ()) -> Tensor:
        return self.sampling(quantiles, 1.0)

    def share(self, t: Tensor) -> Tensor:
        return t

    def _turn(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        angle = rows(t * (math.pi / 2), like)
        return angle.cos(), angle.sin()

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        cos, sin = self._turn(t, x)
        return cos * x + sin * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        cos, sin = self._turn(t, x)
        return cos * noise - sin * x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        cos, sin = self._turn(t, x_t)
        return cos * x_t - sin * prediction

    def snr(self, t: Tensor) -> Tensor:
        return (t * (math.pi / 2)).tan().reciprocal().square()

    def error_of_x(self, snr: Tensor) -> Tensor:
        # The error of x is sin times that of v, and 1 / sin² = 1 + cot².
        return 1 + snr
