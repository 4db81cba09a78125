"""The Plan: everything random about a run as pure functions of (seed, step, position in the global batch).

Counter-based random numbers (Philox; Salmon et al. 2011) have no state that could be lost, shared or consumed: the draw for
one row does not depend on which process makes it, on workers, on accumulation, or on whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def _key(seed: int, stream: str) -> list[int]:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")]


def generator(seed: int, stream: str, step: int, position: int) -> np.random.Generator:
    """Random numbers that depend on these four and on nothing else. `stream` names what is drawn."""
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=[0, 0, position, step]))


def normal(seed: int, stream: str, step: int, position: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers that depend on these four and on nothing else: fp32 on the CPU, of this shape."""
    return torch.from_numpy(generator(seed, stream, step, position).standard_normal(tuple(shape), np.float32))


def even(seed: int, stream: str, step: int, position: int, shape: Sequence[int]) -> Tensor:
    """Even numbers in [0, 1), likewise."""
    return torch.from_numpy(generator(seed, stream, step, position).random(tuple(shape), np.float32))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return generator(seed, "order", epoch, 0).permutation(size)


@dataclass(frozen=True)
class Plan:
    """What happens at every step of a run.

    Attributes:
        seed: the run's.
        size: number of pictures; each is seen once an epoch, in an order of that epoch.
        batch: rows of the global batch: pictures an optimizer step, over all processes.
    """

    seed: int
    size: int
    batch: int

    def rows(self, step: int, positions: Sequence[int]) -> Rows:
        """The draws for some positions, 0 … batch - 1, of one step."""
        return Rows(self, step, tuple(positions))

    def item(self, step: int, position: int) -> int:
        """Which picture stands there."""
        epoch, place = divmod(step * self.batch + position, self.size)
        return int(_permutation(self.seed, epoch, self.size)[place])

    def uniform(self, stream: str, step: int, position: int) -> float:
        """An even draw in [0, 1)."""
        return float(generator(self.seed, stream, step, position).random())


@dataclass(frozen=True)
class Rows:
    """The Plan's draws for these rows of one step: `n` below is `len(positions)`."""

    plan: Plan
    step: int
    positions: tuple[int, ...]

    def items(self) -> list[int]:
        """Indices of the pictures (n,)."""
        return [self.plan.item(self.step, p) for p in self.positions]

    def uniform(self, stream: str) -> Tensor:
        """Even draws in [0, 1) (n,), fp64."""
        return torch.tensor([self.plan.uniform(stream, self.step, p) for p in self.positions], dtype=torch.float64)

    def flipped(self, probability: float) -> list[bool]:
        """Which pictures are mirrored (n,)."""
        return [u < probability for u in self.uniform("flip").tolist()]

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
