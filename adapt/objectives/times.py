"""From even quantiles to training times: densities over the share of noise u, 0 (clean) … 1 (pure noise).

Quantiles come from the Plan, so that times are functions of (seed, step, position). Esser et al. 2024, arXiv 2403.03206,
section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("uniform", "logit_normal", "mode")


@dataclass(frozen=True)
class TimeSampling:
    """How training times are spread.

    Attributes:
        kind: `uniform`; `logit_normal`, sigmoid of a normal with `mean` and `std` (eq. 19); `mode`, heavier in the
            middle or at the ends by `scale` (eq. 20).
        low, high: the range of u that is trained, 0 ≤ low < high ≤ 1.
    """

    kind: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.29
    low: float = 0.0
    high: float = 1.0

    def __call__(self, quantiles: Tensor) -> Tensor:
        """Even quantiles in [0, 1) → u in [low, high)."""
        return self.low + (self.high - self.low) * self._density(quantiles)

    def _density(self, q: Tensor) -> Tensor:
        if self.kind == "logit_normal":
            return torch.sigmoid(self.mean + self.std * torch.special.ndtri(q.double())).to(q)
        if self.kind == "mode":
            return (1 - q - self.scale * (torch.cos(math.pi / 2 * q) ** 2 - 1 + q)).clamp(0, 1)
        return q
