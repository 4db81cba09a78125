"""Several conditions at once, each with a weight of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.base import Branch, Contrast, Moment


@dataclass(frozen=True)
class Composition(Contrast):
    """prediction = c + Σ weight_k · (c_k - negative): further conditions, each pulling on its own (Liu et al. 2022, arXiv
    2206.01714, eq. 13).

    Attributes:
        further: conditions, one row a picture, and the weight of each: 0 is neutral, below 0 keeps it away.
    """

    further: Sequence[tuple[Condition, float]] = ()

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        active = [Branch(other) for other, weight in self.further if weight]
        return [Branch(negative), *active] if active else None

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        null, *others = found
        guided = conditional
        for weight, other in zip((weight for _, weight in self.further if weight), others, strict=True):
            guided = guided + weight * (other - null)
        return guided
