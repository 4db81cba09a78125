"""What a prediction is compared with: the objective's own target, what the base says, or what guidance makes of that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from adapt.objectives.base import Objective
from conditioning import ClassifierFreeGuidance, Condition, Moment, Predictor


class Target(Protocol):
    """`target(x, noise, t, condition) -> Tensor` shaped like x; without gradient."""

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor: ...

    def under(self, objective: Objective) -> Target:
        """The same, where another objective spreads times and weighs them."""
        ...


@dataclass(frozen=True)
class Plain:
    """The objective's own target: the pictures are right everywhere."""

    objective: Objective

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.objective.target(x, noise, t)

    def under(self, objective: Objective) -> Target:
        return replace(self, objective=objective)


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

    def under(self, objective: Objective) -> Target:
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Guided:
    """The teacher's guided prediction, so that the adapter alone does what takes the teacher two forward passes: n + s (c - n)
    (Meng et al. 2023, arXiv 2210.03142, section 3.1 and equation 5, at one scale s, which the student is not told).

    Attributes:
        teacher: predicts without what is trained.
        guidance: its scale s, its rescale, and what the family does to a guided prediction.
        null: the condition n, one row; facts are those of each picture.
    """

    objective: Objective
    teacher: Predictor
    guidance: ClassifierFreeGuidance
    null: Condition

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
        x_t = self.objective.noised(x, noise, t)
        null = Condition(self.null.expand(len(x)).parts, condition.facts)
        with torch.no_grad():
            conditional = self.teacher(x_t, t, condition)
            return self.guidance.combined(Moment(0, 1, t), conditional, [self.teacher(x_t, t, null)])

    def under(self, objective: Objective) -> Target:
        return replace(self, objective=objective)
