"""A conditioner turns raw conditions (captions, labels, pictures) into one part of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from conditioning.condition import Part


class Conditioner(Protocol):
    """Raw condition → one part. Encoders come in as callables: a conditioner knows no model family.

    Attributes:
        name: the part's name in `Condition.parts`.
    """

    name: str

    def encode(self, raw: Sequence[Any]) -> Part:
        """One row of tensors for each raw condition."""
        ...

    def null(self, rows: int) -> Part:
        """The part that says nothing, `rows` times."""
        ...
