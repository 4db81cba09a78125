"""Shift of times towards noise: how much of it a picture needs to be destroyed grows with its size.

Neighbouring pixels say the same thing again, so that more of them survive the same noise. A shift s multiplies the ratio of
noise to signal σ / (1 - σ) by s (Esser et al. 2024, arXiv 2403.03206, eq. 23); two shifts in a row multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

BySize = Callable[[Sequence[int]], float]
"""`by_size(dims) -> s` for latents of these dims."""


def shifted(u: Tensor, s: float) -> Tensor:
    """s u / (1 + (s - 1) u); keeps 0 and 1."""
    return s * u / (1 + (s - 1) * u)


def unshifted(u: float, s: float) -> float:
    """The u that `shifted` takes there."""
    return u / (s - (s - 1) * u)


@dataclass(frozen=True)
class RootShift:
    """s = own · √(m / n) for m positions, when a base of n is shifted by `own` already (Esser et al. 2024, eq. 23).

    Attributes:
        own: the base's static shift.
        positions: n, of the base's own latents.
    """

    own: float
    positions: int

    def __call__(self, dims: Sequence[int]) -> float:
        return self.own * math.sqrt(math.prod(dims) / self.positions)


@dataclass(frozen=True)
class LinearShift:
    """s = exp(μ), μ linear in the number of tokens: `use_dynamic_shifting` of diffusers' flow schedulers, as Flux has it.

    Attributes:
        few, many: tokens at which μ is `low` and `high`.
        exponential: False for `time_shift_type: linear`, where s = μ.
        patch: positions a token, along each side.
    """

    few: int = 256
    many: int = 4096
    low: float = 0.5
    high: float = 1.15
    exponential: bool = True
    patch: int = 2

    def mu(self, dims: Sequence[int]) -> float:
        """What diffusers' flow schedulers call `mu`."""
        tokens = math.prod(dims) / self.patch**2
        return self.low + (self.high - self.low) * (tokens - self.few) / (self.many - self.few)

    def __call__(self, dims: Sequence[int]) -> float:
        mu = self.mu(dims)
        return math.exp(mu) if self.exponential else mu


def own_shift(scheduler: Mapping[str, Any]) -> float:
    """The static shift of a flow scheduler's configuration; 1 where it shifts by size, which it does only when it draws."""
    if scheduler.get("use_dynamic_shifting"):
        return 1.0
    # FlowMatch* schedulers call it `shift`, multistep ones `flow_shift`.
    return float(scheduler.get("shift") or scheduler.get("flow_shift") or 1.0)


def by_size(scheduler: Mapping[str, Any], own_dims: Sequence[int], patch: int = 2) -> BySize:
    """How a flow scheduler's configuration shifts by size: as it says itself, else by the root.

    Args:
        own_dims: of the base's own latents.
        patch: positions a token, along each side.
    """
    if not scheduler.get("use_dynamic_shifting"):
        return RootShift(own_shift(scheduler), math.prod(own_dims))
    names = {"few": "base_image_seq_len", "many": "max_image_seq_len", "low": "base_shift", "high": "max_shift"}
    said = {ours: scheduler[theirs] for ours, theirs in names.items() if scheduler.get(theirs) is not None}
    return LinearShift(
        **said, patch=patch, exponential=scheduler.get("time_shift_type", "exponential") == "exponential"
    )
