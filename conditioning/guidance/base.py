"""What every guidance is handed and gives back, and how several become one prediction.

Every guidance here is a *contrast*: the conditional prediction c is pushed away from a weaker one w,

    prediction = w + scale · (c - w) = c + (scale - 1) · (c - w),

and they differ in what the weaker one is: the null condition, the negative prompt, a weaker model, a perturbed network.
Contrasts add up: Σ (scale - 1) · (c - w). At scale 1 a contrast is neutral and its branch is not run at all, because
w + 1 · (c - w) is not c in floating point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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
        memory: what a guidance keeps from step to step (APG's momentum). It belongs to one loop, so that guidances hold no
            state: each loop begins with an empty one.
    """

    index: int
    steps: int
    t: Tensor
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


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


class Branch(NamedTuple):
    """One more prediction that a guidance needs.

    Attributes:
        condition: one row a picture.
        predictor: who predicts: `main`, or the name of a weaker or perturbed network.
    """

    condition: Condition
    predictor: str = "main"


class Contrast(ABC):
    """A guidance that compares the conditional prediction with others; see the module."""

    @abstractmethod
    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        """What is predicted besides the conditional; None: neutral at this moment."""

    @abstractmethod
    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        """The guided prediction; `found` are the branches', in their order, each (B, C, *dims)."""

    def __call__(
        self,
        predictors: Mapping[str, Predictor],
        x_t: Tensor,
        moment: Moment,
        condition: Condition,
        negative: Condition,
    ) -> Tensor:
        from conditioning.guidance.total import total

        return total([self], predictors, x_t, moment, condition, negative)
