"""The order in which a family's pipeline lays the axes of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Axes:
    """Between x (B, C, *dims) and a pipeline that lays it otherwise: (B, frames, C, height, width), say. Noise is drawn there,
    so that a seed gives what it gives in the pipeline.

    Attributes:
        order: of our axes, theirs one after the other, the row first; (): the same.
    """

    order: tuple[int, ...] = ()

    def shape(self, ours: Sequence[int]) -> tuple[int, ...]:
        """A shape, as they lay it."""
        return tuple(ours[axis] for axis in self.order) if self.order else tuple(ours)

    def theirs(self, x: Tensor) -> Tensor:
        """x, as they lay it."""
        return x.permute(self.order) if self.order else x

    def ours(self, x: Tensor) -> Tensor:
        """What they lay, as x."""
        return x.permute([self.order.index(axis) for axis in range(len(self.order))]) if self.order else x


AS_HERE = Axes()
