"""A weaker model as what is pushed away from: autoguidance and domain guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import pushed
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class AutoGuidance(Contrast):
    """prediction = w + scale · (c - w), w: a weaker version of the model, under the same condition (Karras et al. 2024,
    arXiv 2406.02507): an earlier checkpoint, or the adapter at less strength. It sharpens without narrowing.

    Attributes:
        dial: the scale over the loop.
        weak: name of the weaker predictor.
    """

    dial: Dial = field(default_factory=Dial)
    weak: str = "weak"

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        return None if self.dial.at(moment) == 1 else [Branch(condition, self.weak)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return pushed(found[0], conditional, self.dial.at(moment))


@dataclass(frozen=True)
class DomainGuidance(Contrast):
    """prediction = b + scale · (c - b), b: the base without the adapter, under the null condition (Zhong et al. 2025,
    arXiv 2504.01521): towards what the adapter was taught, away from what the base would draw anyway.

    Attributes:
        dial: the scale over the loop.
        base: name of the base's predictor.
        same_condition: compare under the same condition instead: what the adapter changed, and nothing else, is pushed.
    """

    dial: Dial = field(default_factory=Dial)
    base: str = "base"
    same_condition: bool = False

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        return (
            None if self.dial.at(moment) == 1 else [Branch(condition if self.same_condition else negative, self.base)]
        )

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return pushed(found[0], conditional, self.dial.at(moment))
