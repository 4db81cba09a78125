"""Adaptive projected guidance, APG (Sadat et al. 2024, arXiv 2410.02416, algorithm 1): the part of the push that runs along
the conditional prediction is what over-saturates, so it is weakened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import Normalise, normalised
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.dial import Dial

MEMORY = "running difference of adaptive projected guidance"


@dataclass(frozen=True)
class ProjectedGuidance(Contrast):
    """prediction = c + (scale - 1) · (orthogonal + eta · parallel) of the running difference c - negative.

    It works on what the model predicts, as in diffusers, not on the clean picture that the paper projects. With eta 1,
    momentum 0 and norm 0 it is classifier-free guidance.

    Attributes:
        dial: the scale over the loop.
        eta: weight of the part along the conditional prediction; 0 leaves it out.
        momentum: weight of the running difference; negative ones push against the last steps.
        norm: a difference that is longer is shortened to this length; 0: never. It depends on the size of the latents.
        normalise: the family's own, as in `ClassifierFreeGuidance`.
    """

    dial: Dial = field(default_factory=Dial)
    eta: float = 0.0
    momentum: float = -0.5
    norm: float = 0.0
    normalise: Normalise | None = None

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        return None if self.dial.at(moment) == 1 else [Branch(negative)]

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        difference = shortened(self._running(moment, conditional - found[0]), self.norm)
        parallel, orthogonal = projected(difference, conditional)
        guided = conditional + (self.dial.at(moment) - 1) * (orthogonal + self.eta * parallel)
        return normalised(guided, conditional, self.normalise)

    def _running(self, moment: Moment, difference: Tensor) -> Tensor:
        if self.momentum == 0:
            return difference
        before = moment.memory.get(MEMORY)
        moment.memory[MEMORY] = running = difference if before is None else difference + self.momentum * before
        return running


def shortened(x: Tensor, norm: float) -> Tensor:
    """x (B, …) with no row longer than `norm`; 0: as it is."""
    if norm == 0:
        return x
    length = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
    factor: Tensor = norm / length
    return x * factor.clamp(max=1)


def projected(x: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of each row of x along `onto` and across it; computed in fp64 (fp32 where there is none)."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    rows, direction = x.to(wide), F.normalize(onto.to(wide).flatten(1), dim=1).view_as(onto)
    dims = tuple(range(1, x.ndim))
    parallel = (rows * direction).sum(dims, keepdim=True) * direction
    return parallel.to(x.dtype), (rows - parallel).to(x.dtype)
