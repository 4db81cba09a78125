"""EDM's parametrisation: x + σ noise, and a network between preconditioners (Karras et al. 2022, arXiv 2206.00364, table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.objectives.base import Objective, rows
from adapt.objectives.losses import Loss
from adapt.objectives.times import TimeSampling
from adapt.objectives.weights import Weighting

MEAN, DEVIATION = -1.2, 1.2
"""P_mean and P_std of table 1: ln σ in the paper's training, with `time_sampling=log_normal`."""


@dataclass(frozen=True, eq=False)
class Edm(Objective):
    """The network F is shown c_in (x + σ noise) and told ln(σ) / 4, and D = c_skip (x + σ noise) + c_out F stands for x.

    Its own error is what is counted: with a weight of 1 that is the error of D by λ = 1 / c_out², the paper's (eq. 8).

    Attributes:
        data: σ_data.
        lowest, highest: σ_min and σ_max of the base's schedule.
        rho: ρ of the schedule (eq. 5); None: exponential, as CosXL's.
        sign: of c_out, as the scheduler has it: 1 for `epsilon`, -1 for `v_prediction`.
    """

    data: float = 0.5
    lowest: float = 0.002
    highest: float = 80.0
    rho: float | None = 7.0
    sign: float = 1.0

    prediction_type = "edm"

    # ------------------------------------------------------------------------------------------------ levels of noise
    def _ends(self) -> tuple[float, float]:
        """σ_min and σ_max in the scale in which the schedule is even."""
        if self.rho is None:
            return math.log(self.lowest), math.log(self.highest)
        return self.lowest ** (1 / self.rho), self.highest ** (1 / self.rho)

    def level(self, share: Tensor) -> Tensor:
        """Share of the base's schedule → σ."""
        low, high = self._ends()
        even = low + share.double() * (high - low)
        return (even.exp() if self.rho is None else even.pow(self.rho)).to(share)

    def share(self, t: Tensor) -> Tensor:
        """The reverse of `level`, of the σ that t tells."""
        low, high = self._ends()
        log = 4 * t.double()
        even = log if self.rho is None else (log / self.rho).exp()
        return ((even - low) / (high - low)).clamp(0, 1).to(t)

    def times(self, quantiles: Tensor, dims: Sequence[int] = ()) -> Tensor:
        if self.sampling.kind == "log_normal":
            return self._log_normal(quantiles).log() / 4
        shift = self.sampling.shift
        u = self.sampling(quantiles, shift if isinstance(shift, float | int) else 1.0)
        return self.level(u).log() / 4

    def _log_normal(self, quantiles: Tensor) -> Tensor:
        """σ with ln σ ~ N(MEAN, DEVIATION²), of which the trained part of the schedule is kept."""
        ends = self.level(torch.tensor([self.sampling.low, self.sampling.high], dtype=torch.float64))
        low, high = torch.special.ndtr((ends.log() - MEAN) / DEVIATION).tolist()
        normal = torch.special.ndtri(low + (high - low) * quantiles.double())
        sigma: Tensor = (MEAN + DEVIATION * normal).exp().to(quantiles)
        return sigma

    # ------------------------------------------------------------------------------------------------ what is learned
    def _preconditioners(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """σ, c_in, c_skip, c_out."""
        sigma = (4 * t.double()).exp()
        norm = (sigma**2 + self.data**2).sqrt()
        c_skip, c_out = (self.data / norm).square(), self.sign * sigma * self.data / norm
        return rows(sigma, like), rows(1 / norm, like), rows(c_skip, like), rows(c_out, like)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network is shown."""
        sigma, c_in, _, _ = self._preconditioners(t, x)
        return c_in * (x + sigma * noise)

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma, _, c_skip, c_out = self._preconditioners(t, x)
        return (x - c_skip * (x + sigma * noise)) / c_out

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        _, c_in, c_skip, c_out = self._preconditioners(t, x_t)
        x: Tensor = c_skip * x_t / c_in + c_out * prediction
        return x

    def snr(self, t: Tensor) -> Tensor:
        return (-8 * t).exp()

    def error_of_x(self, snr: Tensor) -> Tensor:
        # 1 / c_out² = (σ² + σ_data²) / (σ σ_data)².
        return self.data**-2 + snr


def edm_of(
    scheduler: Mapping[str, Any], sampling: TimeSampling, weighting: Weighting | None = None, loss: Loss | None = None
) -> Edm:
    """As one of diffusers' EDM schedulers is configured; the rest as in `Objective`."""
    exponential = scheduler.get("sigma_schedule", "karras") == "exponential"
    return Edm(
        sampling,
        weighting,
        loss,
        data=float(scheduler["sigma_data"]),
        lowest=float(scheduler["sigma_min"]),
        highest=float(scheduler["sigma_max"]),
        rho=None if exponential else float(scheduler["rho"]),
        sign=-1.0 if scheduler["prediction_type"] == "v_prediction" else 1.0,
    )
