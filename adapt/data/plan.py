"""The Plan: everything random about a run as pure functions of (seed, step, position in the global batch).

Counter-based random numbers (Philox; Salmon et al. 2011) have no state that could be lost, shared or consumed: the draw for
one row does not depend on which process makes it, on workers, on accumulation, or on whether the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.data.draws import generator
from adapt.data.order import Order

__all__ = ["Plan", "Rows", "even", "generator", "normal"]


def normal(seed: int, stream: str, step: int, position: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers that depend on these four and on nothing else: fp32 on the CPU, of this shape."""
    return torch.from_numpy(generator(seed, stream, step, position).standard_normal(tuple(shape), np.float32))


def even(seed: int, stream: str, step: int, position: int, shape: Sequence[int]) -> Tensor:
    """Even numbers in [0, 1), likewise."""
    return torch.from_numpy(generator(seed, stream, step, position).random(tuple(shape), np.float32))


@dataclass(frozen=True)
class Plan:
    """What happens at every step of a run.

    Attributes:
        seed: the run's.
        size: number of examples: a picture at one resolution is one.
        batch: rows of the global batch: pictures an optimizer step, over all processes.
        buckets: number of each example's bucket; a batch comes from one. None: there is one bucket.
        repeats: how often each example is seen an epoch, in an order of that epoch; see `Order`. None: once.
    """

    seed: int
    size: int
    batch: int
    buckets: Sequence[int] | NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    repeats: Sequence[float] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def order(self) -> Order:
        """Which example stands where."""
        buckets = np.zeros(self.size, np.int64) if self.buckets is None else np.asarray(self.buckets, np.int64)
        return Order(self.seed, self.batch, buckets, self.repeats)

    def rows(self, step: int, positions: Sequence[int]) -> Rows:
        """The draws for some positions, 0 … batch - 1, of one step."""
        return Rows(self, step, tuple(positions))

    def item(self, step: int, position: int) -> int:
        """Which example stands there."""
        return self.order.item(step, position)

    def uniform(self, stream: str, step: int, position: int) -> float:
        """An even draw in [0, 1)."""
        return float(generator(self.seed, stream, step, position).random())


@dataclass(frozen=True)
class Rows:
    """The Plan's draws for these rows of one step: `n` below is `len(positions)`. What was asked for once is remembered."""

    plan: Plan
    step: int
    positions: tuple[int, ...]
    _known: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def items(self) -> list[int]:
        """Indices of the examples (n,); all of one bucket."""
        return list(self._items)

    @cached_property
    def _items(self) -> tuple[int, ...]:
        return tuple(self.plan.item(self.step, p) for p in self.positions)

    def uniform(self, stream: str) -> Tensor:
        """Even draws in [0, 1) (n,), fp64. Not to be changed in place."""
        if stream not in self._known:
            drawn = [self.plan.uniform(stream, self.step, p) for p in self.positions]
            self._known[stream] = torch.tensor(drawn, dtype=torch.float64)
        return self._known[stream]

    def flipped(self, probability: float) -> list[bool]:
        """Which pictures are mirrored (n,)."""
        return [u < probability for u in self.uniform("flip").tolist()]

    def variants(self, count: int) -> list[int]:
        """Which of `count` versions of its picture each row shows (n,)."""
        return self._below(count, "variant")

    def holes(self, count: int) -> list[int]:
        """Which of `count` holes its picture has in each row (n,)."""
        return self._below(count, "hole")

    def _below(self, count: int, stream: str) -> list[int]:
        return [int(u * count) for u in self.uniform(stream).tolist()] if count > 1 else [0] * len(self.positions)

    def choice(self, options: Sequence[int]) -> list[int]:
        """One of `options[i]` captions for each row (n,)."""
        return [int(u * n) for u, n in zip(self.uniform("caption").tolist(), options, strict=True)]

    def dropped(self, probability: float) -> Tensor:
        """Which conditions are replaced by their null (n,), bool."""
        return self.uniform("drop") < probability

    def quantiles(self) -> Tensor:
        """Where in the density of times each row stands: even in [0, 1), fp64 (n,).

        Positions of a batch are spread over [0, 1) by a golden-ratio sequence with a random start, which covers the times
        more evenly than independent draws and keeps each draw even.
        """
        start = self.plan.uniform("times", self.step, 0)
        offsets = torch.tensor(self.positions, dtype=torch.float64) * ((5**0.5 - 1) / 2)
        return (start + offsets) % 1.0

    def noise(self, shape: Sequence[int], stream: str = "noise") -> Tensor:
        """Standard normal noise (n, *shape), fp32 on the CPU."""
        return torch.stack([normal(self.plan.seed, stream, self.step, p, shape) for p in self.positions])
