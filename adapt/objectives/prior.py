"""Prior preservation without pictures: what the base says about a class is kept while a subject of it is learned.

DreamBooth (Ruiz et al. 2022, arXiv 2208.12242, section 3.3) keeps a class by training on pictures that the base drew of it.
The frozen base can be asked directly instead: it is the adapter, disabled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.objectives.base import Objective
from conditioning import Condition, Predictor


@dataclass(frozen=True)
class Prior:
    """λ · loss(adapter(x_t, t, class), base(x_t, t, class)), added to the loss of every row.

    Attributes:
        objective: its loss and weights are those of the pictures.
        student: predicts with the adapter.
        teacher: predicts with the adapter disabled.
        condition: of the class words, one row.
        weight: λ, over 0.
    """

    objective: Objective
    student: Predictor
    teacher: Predictor
    condition: Condition
    weight: float

    def losses(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, *dims), t (B,) → (B,)."""
        condition = self.condition.expand(len(x_t))
        with torch.no_grad():
            taught = self.teacher(x_t, t, condition)
        return self.weight * self.objective.losses(self.student(x_t, t, condition), taught, t)
