"""From even quantiles to training times: densities over the share of noise u, 0 (clean) … 1 (pure noise).

Quantiles come from the Plan, so that times are functions of (seed, step, position). Esser et al. 2024, arXiv 2403.03206,
section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adapt.objectives.shift import shifted, unshifted


@dataclass(frozen=True)
class TimeSampling:
    """How training times are spread.

    Attributes:
        kind: `uniform`; `logit_normal`, sigmoid of a normal with `mean` and `std` (eq. 19); `mode`, heavier in the
            middle or at the ends by `scale` (eq. 20); `cosmap`, the cosine schedule's density, carried over to flow
            (eq. 21 and 22).
        low, high: the range of u that is trained, 0 ≤ low < high ≤ 1.
        shift: s of eq. 23, over 1 for more noise; `resolution` for that of the latents' size; None for the base's own.
    """

    kind: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.29
    low: float = 0.0
    high: float = 1.0
    shift: float | Literal["resolution"] | None = None

    def __call__(self, quantiles: Tensor, shift: float = 1.0) -> Tensor:
        """Even quantiles in [0, 1) → u in [low, high).

        Args:
            shift: the one that was found for these latents.
        """
        low, high = unshifted(self.low, shift), unshifted(self.high, shift)
        return shifted(low + (high - low) * self._density(quantiles), shift)

    def _density(self, q: Tensor) -> Tensor:
        if self.kind == "logit_normal":
            return torch.sigmoid(self.mean + self.std * torch.special.ndtri(q.double())).to(q)
        if self.kind == "mode":
            return (1 - q - self.scale * (torch.cos(math.pi / 2 * q) ** 2 - 1 + q)).clamp(0, 1)
        if self.kind == "cosmap":  # 1 - 1 / (tan(π/2 q) + 1), without the tangent's infinity
            sine, cosine = torch.sin(math.pi / 2 * q), torch.cos(math.pi / 2 * q)
            return sine / (sine + cosine)
        return q
