"""A perturbed network as what is pushed away from: perturbed attention (PAG) and skipped layers (SLG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import pushed
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial


@dataclass(frozen=True)
class PerturbedGuidance(Contrast):
    """prediction = p + scale · (c - p), p: the same condition through a network that sees structure badly.

    With self-attention maps replaced by the identity it is PAG (Ahn et al. 2024, arXiv 2403.17377), with whole blocks left
    out it is skip-layer guidance. diffusers' `pag_scale` and `skip_guidance_scale` count from 0: theirs is scale - 1.

    Attributes:
        dial: the scale over the loop.
        perturbed: name of the perturbed predictor.
    """

    dial: Dial = field(default_factory=Dial)
    perturbed: str = "perturbed"

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        return None if self.dial.at(moment) == 1 else [Branch(condition, self.perturbed)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        return pushed(found[0], conditional, self.dial.at(moment))
