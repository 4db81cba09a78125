"""Guidance of one part of the condition: text × class × image, each with its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import pushed
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class PartGuidance(Contrast):
    """prediction = w + scale · (c - w), w: the condition with this part replaced by the negative's, all others kept.

    Several add up: c + Σ (scale of a part - 1) · (c - c without it). Every scale at 1 is the joint conditional prediction;
    with a single part it is classifier-free guidance.

    Attributes:
        part: its name in `Condition.parts`.
        dial: the scale over the loop.
    """

    part: str
    dial: Dial = field(default_factory=Dial)

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        if self.dial.at(moment) == 1:
            return None
        return [Branch(condition.replaced({self.part: negative.parts[self.part]}))]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return pushed(found[0], conditional, self.dial.at(moment))


@dataclass(frozen=True)
class WithParts(Contrast):
    """Another guidance, with some parts of the condition kept on both sides: what it keeps away from is told them too.

    Attributes:
        contrast: the guidance.
        parts: names of parts.
    """

    contrast: Contrast
    parts: Sequence[str]

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        kept = {name: condition.parts[name] for name in self.parts}
        return self.contrast.branches(moment, condition, negative.replaced(kept))

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return self.contrast.combined(moment, conditional, found)
