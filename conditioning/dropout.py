"""Which parts of a condition each row goes without: the other half of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Parts = tuple[str, ...]
"""Names of parts that are dropped together."""


@dataclass(frozen=True)
class Dropout:
    """How often each part is dropped alone, and how often several are together (Ho & Salimans 2022, arXiv 2207.12598; of two
    conditions, Brooks et al. 2023, arXiv 2211.09800, section 3.2.1).

    A row draws one number u, even in [0, 1). [0, 1) is cut into pieces, one an entry, in their order and as long as their
    probability: the piece that u falls into says what the row goes without, so that the entries exclude each other and each
    has exactly its own probability. A single part is dropped where u < probability.

    Attributes:
        rates: `{("text",): 0.1, ("class",): 0.1, ("text", "class"): 0.05}`.

    Raises:
        ValueError: a probability that is none, or more than 1 together.
    """

    rates: Mapping[Parts, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := {"+".join(parts): p for parts, p in self.rates.items() if not 0 <= p <= 1}:
            raise ValueError(f"a dropout is a number from 0 to 1: {wrong}")
        if sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError(f"dropouts add up to more than 1: {sum(self.rates.values()):g}")

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that is ever dropped."""
        return tuple(dict.fromkeys(part for parts in self.rates for part in parts))

    def of(self, part: str) -> float:
        """How often a part is dropped, alone or with others."""
        return sum(p for parts, p in self.rates.items() if part in parts)

    def dropped(self, u: Tensor) -> dict[str, Tensor]:
        """Even draws (B,) in [0, 1) → part → which rows go without it (B,), bool."""
        found = {part: torch.zeros_like(u, dtype=torch.bool) for part in self.parts}
        start = 0.0
        for parts, probability in self.rates.items():
            stop = start + probability
            for part in parts:
                found[part] |= (u >= start) & (u < stop)
            start = stop
        return found
