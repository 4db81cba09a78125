"""Guidance of one part of the condition: text × class × image, each with its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
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
class ChainedGuidance(Contrast):
    """prediction = c + (scale - 1) · (p - w), p: the negative with this part and those before it in the chain, w: without this.

    A chain of parts with the words at its end is n + s₁ · (p₁ - n) + s₂ · (p₂ - p₁) + … + words' scale · (c - pₙ) (Brooks et al.
    2023, arXiv 2211.09800, eq. 3, where the picture comes first). Each part is asked as it was learned, without words, and what
    the words add is asked last. c - c without the class, with words on both sides, does not make more of the class.

    Attributes:
        part: its name in `Condition.parts`.
        dial: the scale over the loop.
        before: parts that come before it.
        zeros: what is without it has zeros, where the negative has it too: a picture that is edited.
    """

    part: str
    dial: Dial = field(default_factory=Dial)
    before: Sequence[str] = ()
    zeros: bool = False

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        if self.dial.at(moment) == 1:
            return None
        told = {name: condition.parts[name] for name in self.before}
        own = condition.parts[self.part]
        nothing = {self.part: {name: torch.zeros_like(x) for name, x in own.items()}} if self.zeros else {}
        return [Branch(negative.replaced({**told, self.part: own})), Branch(negative.replaced({**told, **nothing}))]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return conditional + (self.dial.at(moment) - 1) * (found[0] - found[1])


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
