"""Several conditioners as one: a part each, dropped alone and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from conditioning.condition import Condition
from conditioning.conditioner import Conditioner
from conditioning.dropout import Dropout


class JointConditioner:
    """Text × class × image …: a condition with one part a conditioner, each with its own null and its own dropout, and so with
    a guidance scale of its own (`PartGuidance`).

    Args:
        conditioners: one a part; their names differ.
        dropout: of single parts, of pairs, and of all.

    Raises:
        ValueError: two conditioners of one part, or a dropout of a part that there is not.
    """

    def __init__(self, conditioners: Sequence[Conditioner], dropout: Dropout | None = None) -> None:
        self.conditioners = {conditioner.name: conditioner for conditioner in conditioners}
        self.dropout = dropout or Dropout()
        if len(self.conditioners) < len(conditioners):
            raise ValueError(f"one conditioner a part: {[conditioner.name for conditioner in conditioners]}")
        if strange := set(self.dropout.parts) - set(self.conditioners):
            raise ValueError(f"a dropout of parts that there are not: {sorted(strange)}; {sorted(self.conditioners)}")

    def encode(self, raw: Mapping[str, Sequence[Any]]) -> Condition:
        """Part → one raw condition a row. A part that is not named is null in every row.

        Raises:
            ValueError: unknown parts, none at all, or other numbers of rows.
        """
        if strange := set(raw) - set(self.conditioners):
            raise ValueError(f"there is no conditioner for {sorted(strange)}; known: {sorted(self.conditioners)}")
        rows = {len(values) for values in raw.values()}
        if len(rows) != 1:
            raise ValueError(f"every part has one raw condition a row: found {sorted(rows)} rows")
        n = rows.pop()
        return Condition(
            {name: each.encode(raw[name]) if name in raw else each.null(n) for name, each in self.conditioners.items()}
        )

    def null(self, rows: int) -> Condition:
        """The condition that says nothing at all."""
        return Condition({name: each.null(rows) for name, each in self.conditioners.items()})

    def drop(self, condition: Condition, u: Tensor) -> Condition:
        """The condition with parts dropped by these draws (B,), even in [0, 1)."""
        return condition.drop(self.dropout.dropped(u), self.null(len(condition)))
