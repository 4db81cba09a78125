"""CFG-Zero* (Fan et al. 2025, arXiv 2503.18886): the null prediction is scaled to fit the conditional one, and the first
steps of a flow, where an under-trained velocity does more harm than good, are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import pushed
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class ZeroStarGuidance(Contrast):
    """prediction = α n + scale · (c - α n) with α = ⟨c, n⟩ / ‖n‖², row by row (the paper's eq. 9).

    Attributes:
        dial: the scale over the loop.
        zero_steps: so many first predictions are zero. Only velocities of flow matching mean "stay" by zero: leave it at 0
            for every other model.
    """

    dial: Dial = field(default_factory=Dial)
    zero_steps: int = 0

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        if moment.index < self.zero_steps:
            return []
        return None if self.dial.at(moment) == 1 else [Branch(negative)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        if moment.index < self.zero_steps:
            return conditional.new_zeros(conditional.shape)
        return pushed(found[0] * fit(conditional, found[0]), conditional, self.dial.at(moment))


def fit(conditional: Tensor, null: Tensor) -> Tensor:
    """The factor α (B, 1, …) with which `null` comes nearest to `conditional`; computed in fp32."""
    dims = tuple(range(1, null.ndim))
    c, n = conditional.float(), null.float()
    return ((c * n).sum(dims, keepdim=True) / ((n * n).sum(dims, keepdim=True) + 1e-8)).to(null.dtype)
