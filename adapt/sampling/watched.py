"""Predictors that stand in the backbone's place: they look on, or leave something out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from conditioning import Condition, Part, Predictor
from conditioning.matching import rows_of


class Change(NamedTuple):
    """How much the adapter changes the prediction at one step of a drawing.

    Attributes:
        t: in the unit of the scheduler.
        relative: ‖with - without‖ / ‖without‖, at the same x_t.
    """

    t: float
    relative: float


class Compared:
    """`predict`, and beside it what the base without adapters predicts from the same x_t.

    Args:
        predict: with adapters; what it gives is given back.
        base: without.
        condition: one row: what is drawn; negatives are not compared.
        bare: the same as the base's own encoders have it.
    """

    def __init__(self, predict: Predictor, base: Predictor, condition: Condition, bare: Condition) -> None:
        self._predict, self._base, self.condition, self._bare = predict, base, condition, bare
        self.changes: list[Change] = []

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        prediction = self._predict(x_t, t, condition)
        rows = rows_of(condition, self.condition)[:1].to(x_t.device)
        if len(rows):
            without = self._base(x_t[rows], t[rows], self._bare)
            change = (prediction[rows] - without).float().norm() / without.float().norm()
            self.changes.append(Change(float(t[rows][0]), float(change)))
        return prediction


class Without:
    """`predict` for a condition that lacks a part.

    Args:
        predict: the backbone's.
        condition: what is drawn, one row.
        name: of the part.
        null: what stands in its place, one row.
    """

    def __init__(self, predict: Predictor, condition: Condition, *, name: str, null: Part) -> None:
        self._predict, self.condition = predict, condition
        self._name, self._null = name, Condition({name: null})

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        rows = rows_of(condition, self.condition)
        dropped = x_t.new_zeros(len(x_t)).bool()
        dropped[rows.to(dropped.device)] = True
        if dropped.all():  # also where null has other tokens than a long prompt
            return self._predict(x_t, t, condition.replaced(self._null.expand(len(x_t)).parts))
        return self._predict(x_t, t, condition.drop({self._name: dropped}, self._null.expand(len(x_t))))
