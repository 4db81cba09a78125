"""What an error costs: its square, or less than that where it is large.

Few outliers (a watermark, a wrong picture) decide a mean of squares. The pseudo-Huber loss is a square for errors far below a
threshold c and a straight line far above it (Khrapov et al. 2024, arXiv 2403.16728). Scheduled, the threshold falls with noise,
so that outliers count less where the outline is decided and fine detail is still learned by squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def huber(error: Tensor, c: Tensor) -> Tensor:
    """2 c (√(e² + c²) - c): e² for e ≪ c, 2 c |e| for e ≫ c. Written without the difference, which loses small errors."""
    return 2 * c * error.square() / ((error.square() + c.square()).sqrt() + c)


def smooth_l1(error: Tensor, c: Tensor) -> Tensor:
    """2 (√(e² + c²) - c): `huber` / c, so that large errors cost 2 |e| whatever the threshold."""
    return 2 * error.square() / ((error.square() + c.square()).sqrt() + c)


@dataclass(frozen=True)
class Loss:
    """A loss that large errors cost less of than their square.

    Attributes:
        kind: `huber` or `smooth_l1` (kohya's formulas, in which `huber` is the pseudo-Huber loss times 2).
        c: threshold at pure noise, over 0, in units of the prediction.
        schedule: how c(t) runs from clean to pure noise: `constant`; `exponential`, from 1 down to c; `snr`, likewise
            but along (1 - σ)².
    """

    kind: str = "huber"
    c: float = 0.1
    schedule: str = "snr"

    def __call__(self, error: Tensor, c: Tensor) -> Tensor:
        """The loss of every value; `c` broadcasts to `error`."""
        return {"huber": huber, "smooth_l1": smooth_l1}[self.kind](error, c)

    def threshold(self, share: Tensor, snr: Tensor) -> Tensor:
        """c(t) (B,) from the share of time, 0 … 1, and the SNR, 0 … ∞, of each row (B,).

        Exponential: c^(t / T). SNR: (1 - c) / (1 + 1 / √SNR)² + c. Both as kohya's trainer has them.
        """
        if self.schedule == "exponential":
            return self.c**share
        if self.schedule == "snr":
            return (1 - self.c) / (1 + 1 / snr.sqrt()).square() + self.c
        return torch.full_like(share, self.c)


def mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of each row (B,); with a weight, the mean over the weighted area, Σ w l / Σ w.

    Normalised by the area, every picture counts the same however small its mask is, losses with and without masks can be
    compared, and a weight of all ones changes not one bit. (kohya divides by all values: small masks then hardly count.)

    Args:
        values: (B, C, *dims).
        weight: 0 … 1, broadcasts to `values`: (B, 1, *dims), say. A row of zeros only gives 0.
    """
    if weight is None:
        return values.flatten(1).mean(1)
    weight = weight.to(values)
    area = weight.flatten(1).sum(1) / weight[0].numel()
    weighted: Tensor = (values * weight).flatten(1).mean(1)
    return weighted / area.clamp(min=torch.finfo(area.dtype).tiny)
