"""What every guidance is handed and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from conditioning.condition import Condition

Predictor = Callable[[Tensor, Tensor, Condition], Tensor]
"""`predict(x_t (B, C, *dims), t (B,), condition) -> (B, C, *dims)`."""


@dataclass(frozen=True)
class Moment:
    """Where in the denoising loop we are.

    Attributes:
        index: step of the loop, 0 … steps - 1.
        steps: length of the loop.
        t: the scheduler's time of this step, as a scalar tensor.
    """

    index: int
    steps: int
    t: Tensor


class Guidance(Protocol):
    """`guide(predictors, x_t, moment, condition, negative) -> prediction`, shaped like x_t."""

    def __call__(
        self,
        predictors: Mapping[str, Predictor],
        x_t: Tensor,
        moment: Moment,
        condition: Condition,
        negative: Condition,
    ) -> Tensor: ...
