"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6), in diffusers' convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import Normalise, normalised, pushed, rescaled
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class ClassifierFreeGuidance(Contrast):
    """prediction = negative + scale · (conditional - negative), rescaled.

    Attributes:
        scale: 1 is neutral and then the negative branch is not run; above 1 follows the condition more closely.
        rescale: 0 … 1, how far the standard deviation is brought back to the conditional's, against over-exposure.
        start, stop, schedule: see `Dial`.
        normalise: the family's own; before `rescale`.
    """

    scale: float = 1.0
    rescale: float = 0.0
    start: float = 0.0
    stop: float = 1.0
    schedule: str = "constant"
    normalise: Normalise | None = None

    @property
    def dial(self) -> Dial:
        return Dial(self.scale, self.start, self.stop, self.schedule)

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        return None if self.dial.at(moment) == 1 else [Branch(negative)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        guided = pushed(found[0], conditional, self.dial.at(moment))
        return rescaled(normalised(guided, conditional, self.normalise), conditional, self.rescale)
