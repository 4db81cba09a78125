"""The paired held-out loss: the same pictures, times and noise for the base and for every step of the adapter.

Most of the spread of a diffusion loss comes from times and noise. With both fixed, what differs between two measurements is
the adapter, and its standard error is that of the paired differences over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.data.plan import normal
from adapt.objectives import Objective, Plain, Target
from conditioning import Condition


@dataclass(frozen=True)
class Measurement:
    """Attributes:
    step: optimizer steps done.
    loss: mean held-out loss.
    base: the same of the base.
    ratio: loss / base; below 1 the adapter has learned something that carries over.
    standard_error: of the ratio, over pictures; None with a single picture.
    change: (loss - base) in standard errors of the paired differences; 0 when their spread is 0 or not known.
    pictures: how many.
    """

    step: int
    loss: float
    base: float
    ratio: float
    standard_error: float | None
    change: float
    pictures: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(step: int, adapted: Sequence[float], base: Sequence[float]) -> Measurement:
    """From the losses of each picture, with and without the adapter. With one picture the spread is not known."""
    a, b = torch.tensor(adapted, dtype=torch.float64), torch.tensor(base, dtype=torch.float64)
    n, ratio = len(a), float(a.mean() / b.mean())
    if n < 2:
        return Measurement(step, float(a.mean()), float(b.mean()), ratio, None, 0.0, n)
    error = float((a - ratio * b).std() / (b.mean() * n**0.5))  # delta method, paired
    spread = float((a - b).std() / n**0.5)
    change = float((a - b).mean()) / spread if spread else 0.0
    return Measurement(step, float(a.mean()), float(b.mean()), ratio, error, change, n)


@dataclass(frozen=True)
class HeldOut:
    """Held-out pictures.

    Attributes:
        x: latents (n, C, *dims); posterior means.
        condition: n rows.
        times: at how many even quantiles each picture is measured.
        batch: rows a forward pass.
    """

    x: Tensor
    condition: Condition
    times: int = 8
    batch: int = 8

    @torch.no_grad()
    def losses(self, backbone: Backbone, objective: Objective, target: Target | None = None) -> list[float]:
        """Mean loss of each picture over the times (n,). A pure function of the weights.

        Args:
            target: what is right; None: the pictures, at all times.
        """
        denoiser = backbone.denoiser
        training = denoiser.training
        denoiser.eval()
        try:
            columns = [self._column(backbone, objective, target or Plain(objective), k) for k in range(self.times)]
        finally:
            denoiser.train(training)
        return [float(v) for v in torch.stack(columns).double().mean(0)]

    def _column(self, backbone: Backbone, objective: Objective, target: Target, k: int) -> Tensor:
        """Losses of all pictures at the k-th time (n,)."""
        found = []
        for first in range(0, len(self.x), self.batch):
            x, condition = self.x[first : first + self.batch], self.condition.rows(slice(first, first + self.batch))
            t = objective.times(torch.full((len(x),), (k + 0.5) / self.times)).to(x.device)
            noise = torch.stack([_noise(x, k, first + i) for i in range(len(x))]).to(x)
            prediction = backbone.predict(objective.noised(x, noise, t), t, condition)
            found.append(objective.losses(prediction, target(x, noise, t, condition), t).cpu())
        return torch.cat(found)


def _noise(x: Tensor, k: int, picture: int) -> Tensor:
    """Fixed for ever, whatever the run's seed: measurements of different runs can be compared."""
    return normal(0, "held-out", k, picture, x.shape[1:])
