"""CFG-Zero* (Fan et al. 2025, arXiv 2503.18886): the null prediction is scaled to fit the conditional one, and the first
steps of a flow, where an under-trained velocity does more harm than good, are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import Normalise, normalised, pushed
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class ZeroStarGuidance(Contrast):
    """prediction = α n + scale · (c - α n) with α = ⟨c, n⟩ / ‖n‖², row by row (the paper's eq. 9).

    Attributes:
        dial: the scale over the loop.
        zero_steps: so many first predictions are zero, as far as the dial is not neutral there: diffusers' guider zeroes them at
            scale 1 and before `start` too, unless it is switched off. Only velocities of flow matching mean "stay" by zero:
            leave it at 0 for every other model.
        normalise: the family's own, as in `ClassifierFreeGuidance`.
    """

    dial: Dial = field(default_factory=Dial)
    zero_steps: int = 0
    normalise: Normalise | None = None

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        if self.dial.at(moment) == 1:
            return None
        return [] if moment.index < self.zero_steps else [Branch(negative)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        if moment.index < self.zero_steps:
            return conditional.new_zeros(conditional.shape)
        guided = pushed(found[0] * fit(conditional, found[0]), conditional, self.dial.at(moment))
        return normalised(guided, conditional, self.normalise)


def fit(conditional: Tensor, null: Tensor) -> Tensor:
    """The factor α (B, 1, …) with which `null` comes nearest to `conditional`; computed in fp32."""
    dims = tuple(range(1, null.ndim))
    c, n = conditional.float(), null.float()
    return ((c * n).sum(dims, keepdim=True) / ((n * n).sum(dims, keepdim=True) + 1e-8)).to(null.dtype)
