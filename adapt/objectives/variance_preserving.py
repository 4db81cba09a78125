"""Variance-preserving diffusion over T discrete times: x_t = √ᾱ_t x + √(1 - ᾱ_t) noise (Ho et al. 2020, arXiv 2006.11239, eq. 4).

The three predictions differ in what the denoiser is asked for; everything else is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapt.objectives.base import Objective, rows


@dataclass(frozen=True, eq=False)
class VariancePreserving(Objective):
    """Attributes:
    alphas_cumprod: ᾱ (T,), falling from about 1; the last may be exactly 0 (zero-terminal SNR, arXiv 2305.08891).
    """

    alphas_cumprod: Tensor = field(default_factory=lambda: torch.ones(1), repr=False)

    def times(self, quantiles: Tensor, dims: Sequence[int] = ()) -> Tensor:
        # A shift moves the share of time. Moving the SNR itself, as flow does, would leave the table: what lies beyond its
        # noisiest time would pile up there.
        count, shift = len(self.alphas_cumprod), self.sampling.shift
        if shift == "resolution":
            raise ValueError("discrete times have no shift by resolution")
        return (self.sampling(quantiles, 1.0 if shift is None else shift) * count).long().clamp(0, count - 1)

    def share(self, t: Tensor) -> Tensor:
        return t / len(self.alphas_cumprod)

    def scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 - ᾱ_t), each (B, 1, …, 1)."""
        alpha = self.alphas_cumprod.to(like.device)[t.long()]
        return rows(alpha.sqrt(), like), rows((1 - alpha).sqrt(), like)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.scales(t, x)
        return signal * x + sigma * noise

    def snr(self, t: Tensor) -> Tensor:
        alpha = self.alphas_cumprod.to(t.device)[t.long()]
        return alpha / (1 - alpha)


class Epsilon(VariancePreserving):
    """The noise itself."""

    prediction_type = "epsilon"

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.scales(t, x_t)
        return (x_t - sigma * prediction) / signal

    def error_of_x(self, snr: Tensor) -> Tensor:
        return snr


class Velocity(VariancePreserving):
    """v = √ᾱ_t noise - √(1 - ᾱ_t) x (Salimans & Ho 2022, arXiv 2202.00512, appendix D)."""

    prediction_type = "v_prediction"

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.scales(t, x)
        return signal * noise - sigma * x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self.scales(t, x_t)
        return signal * x_t - sigma * prediction

    def error_of_x(self, snr: Tensor) -> Tensor:
        return snr + 1


class Sample(VariancePreserving):
    """The clean x."""

    prediction_type = "sample"

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return x

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        return prediction

    def error_of_x(self, snr: Tensor) -> Tensor:
        return torch.ones_like(snr)
