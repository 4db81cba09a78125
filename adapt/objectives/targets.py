"""What a prediction is compared with: the objective's own target, or what the base says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from adapt.objectives.base import Objective
from conditioning import Condition, Predictor


class Target(Protocol):
    """`target(x, noise, t, condition) -> Tensor` shaped like x; without gradient."""

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor: ...


@dataclass(frozen=True)
class Plain:
    """The objective's own target: the pictures are right everywhere."""

    objective: Objective

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.objective.target(x, noise, t)


@dataclass(frozen=True)
class Anchored:
    """Above a share of noise the base itself is the target, so that the adapter changes looks and leaves layout alone.

    The outline of a picture is decided at noisy times and its rendering at clean ones (Choi et al. 2022, arXiv 2204.00227).
    The frozen base is the teacher, as in prior preservation without pictures: the adapter that comes out is close to none
    above `above`, needs no switch when drawing, and works in any program.

    Attributes:
        teacher: predicts with the adapter disabled.
        above: share of noise, 0 … 1, from which on the teacher is right.
    """

    objective: Objective
    teacher: Predictor
    above: float

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
        target = self.objective.target(x, noise, t)
        index = (self.objective.share(t) >= self.above).nonzero().flatten()
        if len(index) == 0:
            return target
        with torch.no_grad():
            x_t = self.objective.noised(x, noise, t)
            taught = self.teacher(x_t[index], t[index], condition.rows(index))
        return target.index_copy(0, index, taught.to(target))
