"""Concept sliders: from one opposite to the other, whatever else is drawn (Gandikota et al. 2023, arXiv 2311.12092)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapt.objectives.base import Objective
from adapt.objectives.targets import Target
from conditioning import Condition, Predictor


@dataclass(frozen=True)
class Slid:
    """The base's own prediction, moved along the difference of two prompts: p(c) + η (p(c+) - p(c-)) (equation 7; p predicts what
    the base predicts: at one x_t and t all of that differ by factors, so that the formula is the same).

    Attributes:
        teacher: p, predicts without what is trained.
        more, less: c+ and c-, one row each; facts are those of each picture.
        strength: η, how far one goes at the adapter's scale 1.
    """

    objective: Objective
    teacher: Predictor
    more: Condition
    less: Condition
    strength: float

    def __call__(self, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
        x_t = self.objective.noised(x, noise, t)
        more, less = (Condition(c.expand(len(x)).parts, condition.facts) for c in (self.more, self.less))
        with torch.no_grad():
            difference = self.teacher(x_t, t, more) - self.teacher(x_t, t, less)
            return self.teacher(x_t, t, condition) + self.strength * difference

    def under(self, objective: Objective) -> Target:
        return replace(self, objective=objective)
