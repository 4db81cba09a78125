"""The paired held-out loss: the same pictures, times and noise for the base and for every step of the adapter.

Most of the spread of a diffusion loss comes from times and noise. With both fixed, what differs between two measurements is
the adapter, and its standard error is that of the paired differences over pictures.

The times are stratified: each picture has one in each of K equal shares of the density. Where in its share, moves from picture
to picture by the golden ratio, so that all pictures together cover the density closely. The same K times for all pictures
would be a quadrature with K points, whose error no number of pictures lowers (`benchmarks/validation_power.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapt.backbones import Backbone
from adapt.backbones.sources import PART as SOURCE
from adapt.data.plan import normal
from adapt.evaluation.curve import bands, mean_log_ratio, table
from adapt.evaluation.measurement import Measurement
from adapt.objectives import Objective, Plain, Target
from conditioning import Condition, Part

__all__ = ["HeldOut", "Measurement", "compare", "evaluating"]

GOLDEN = (5**0.5 - 1) / 2


ROUNDING = 1e-5
"""Relative differences of losses up to here are called none: a base with an adapter that does nothing rounds elsewhere than one
without, and in units of a standard error that is as small, that would look like learning."""


def compare(
    step: int,
    adapted: Sequence[float] | Tensor,
    base: Sequence[float] | Tensor,
    noise: Tensor | None = None,
    rounding: float = ROUNDING,
) -> Measurement:
    """From losses with and without the adapter. With one picture the spread is not known.

    Args:
        adapted, base: one loss a picture, or (pictures, bands).
        noise: share of noise of each of them, for the curve.
        rounding: relative differences up to it are none.
    """
    adapted, base = table(adapted), table(base)
    log_ratio, log_error = mean_log_ratio(adapted, base)
    more: dict[str, Any] = {
        "log_ratio": log_ratio,
        "log_error": log_error,
        "curve": () if noise is None else bands(noise, adapted, base),
        "anchored": bool((base == 0).any()),
    }
    a, b = adapted.mean(1), base.mean(1)
    n = len(a)
    if not bool(b.any()):  # the base is right everywhere: there is nothing to be learned
        return Measurement(step, float(a.mean()), 0.0, 1.0, None, 0.0, n, **more)
    ratio = float(a.mean() / b.mean())
    if n < 2:
        return Measurement(step, float(a.mean()), float(b.mean()), ratio, None, 0.0, n, **more)
    error = float((a - ratio * b).std() / (b.mean() * n**0.5))  # delta method, paired
    spread = float((a - b).std() / n**0.5)
    same = bool(((a - b).abs() <= rounding * b.mean()).all())
    change = 0.0 if same or not spread else float((a - b).mean()) / spread
    return Measurement(step, float(a.mean()), float(b.mean()), ratio, error, change, n, **more)


@dataclass(frozen=True)
class HeldOut:
    """Pictures that are measured.

    Attributes:
        x: n latents, each (C, *dims), posterior means; their shapes may differ. A tensor (n, C, *dims) is such a sequence.
        condition: n rows; where encoders are trained, as the base has them.
        times: at how many times each picture is measured, one in each of as many equal shares of their density.
        batch: rows a forward pass.
        pairs: at every time also with the negative of the noise (antithetic): what is odd in the noise cancels.
        areas: how much each place of each picture counts, (1, *dims) or None; none: everything counts alike.
        hear: rows → what encoders that are trained now make of their captions; None: nothing is trained in them.
        sources: the part `source` of each without its row, in bases that edit; none: there is none.
    """

    x: Sequence[Tensor] | Tensor
    condition: Condition
    times: int = 8
    batch: int = 8
    pairs: bool = False
    areas: Sequence[Tensor | None] = ()
    hear: Callable[[Sequence[int]], Condition] | None = None
    sources: Sequence[Part] = ()

    def losses(self, backbone: Backbone, objective: Objective, target: Target | None = None) -> list[float]:
        """Mean loss of each picture over the times (n,). A pure function of the weights."""
        return [float(v) for v in self.table(backbone, objective, target).mean(1)]

    @torch.no_grad()
    def table(self, backbone: Backbone, objective: Objective, target: Target | None = None) -> Tensor:
        """The loss of each picture at each time (n, times), fp64 on the CPU. A pure function of the weights.

        Args:
            target: what is right; None: the pictures, at all times.
        """
        found, right = torch.empty(len(self.x), self.times, dtype=torch.float64), target or Plain(objective)
        with evaluating(*backbone.networks):
            for rows in self._batches():
                x = torch.stack([self.x[i] for i in rows]).to(backbone.device, backbone.dtype)
                condition = self.condition.rows(torch.tensor(rows, device=_device(self.condition)))
                condition = condition.to(backbone.device, backbone.dtype)
                heard = condition if self.hear is None else self.hear(rows)
                condition, heard = (each.replaced(self._source(rows, x)) for each in (condition, heard))
                for k in range(self.times):
                    found[rows, k] = self._losses(backbone, objective, right, rows, x, condition, heard, k)
        return found

    def shares(self, objective: Objective) -> Tensor:
        """The share of noise at each time of each picture (n, times), fp32."""
        found = torch.empty(len(self.x), self.times)
        for rows in self._batches():
            for k in range(self.times):
                found[rows, k] = objective.share(self._times(objective, rows, k)).float()
        return found

    def _times(self, objective: Objective, rows: list[int], k: int) -> Tensor:
        """The k-th time of these pictures of one shape (len(rows),): in the middle of its share for the first picture."""
        places = (0.5 + torch.tensor(rows, dtype=torch.float64) * GOLDEN) % 1
        return objective.times((k + places) / self.times, self.x[rows[0]].shape[1:])

    def _batches(self) -> Iterator[list[int]]:
        """Indices of pictures of one shape, at most `batch` together."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i in range(len(self.x)):
            shapes.setdefault(tuple(self.x[i].shape), []).append(i)
        for same in shapes.values():
            yield from (same[first : first + self.batch] for first in range(0, len(same), self.batch))

    def _losses(
        self, backbone: Backbone, objective: Objective, target: Target, rows: list[int], x: Tensor,
        condition: Condition, heard: Condition, k: int,
    ) -> Tensor:  # fmt: skip
        """Losses of these pictures at the k-th time (len(rows),), fp64.

        Args:
            condition: for a target that asks the base.
            heard: for the prediction.
        """
        t = self._times(objective, rows, k).to(x.device)
        first = torch.stack([_noise(x, k, i) for i in rows]).to(x)
        found, area = [], self._area(rows, x)
        for noise in (first, -first)[: 1 + self.pairs]:
            prediction = backbone.predict(objective.noised(x, noise, t), t, heard)
            found.append(objective.losses(prediction, target(x, noise, t, condition), t, area).cpu().double())
        return torch.stack(found).mean(0)

    def _source(self, rows: list[int], x: Tensor) -> dict[str, Part]:
        """The part of these pictures (len(rows), …)."""
        found = [self.sources[i] for i in rows] if self.sources else []
        return {SOURCE: {name: torch.stack([part[name] for part in found]).to(x) for name in found[0]}} if found else {}

    def _area(self, rows: list[int], x: Tensor) -> Tensor | None:
        """(len(rows), 1, *dims), or None where everything counts."""
        found = [self.areas[i] if self.areas else None for i in rows]
        if all(area is None for area in found):
            return None
        everywhere = torch.ones(1, *x.shape[2:])
        return torch.stack([everywhere if area is None else area for area in found]).to(x.device)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Without dropout inside the `with`."""
    training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, before in zip(modules, training, strict=True):
            module.train(before)


def _device(condition: Condition) -> torch.device | None:
    return next((x.device for part in condition.parts.values() for x in part.values()), None)


def _noise(x: Tensor, k: int, picture: int) -> Tensor:
    """Fixed for ever, whatever the run's seed: measurements of different runs can be compared."""
    return normal(0, "held-out", k, picture, x.shape[1:])
