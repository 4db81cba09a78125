"""Holes: what pictures lack when an inpainting base learns to fill it. Each is a function of (seed, picture, number) alone.

So what is left of a picture can be encoded before step 1, and the Plan chooses among its holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.data.draws import generator

WHOLE = 0.25
"""Share of holes that take the whole picture, as in the training of Stable Diffusion's inpainting model (its model card)."""
SMALLEST = 0.1
"""Least side of the others, of the picture's: a network hardly notices smaller ones."""


@dataclass(frozen=True)
class Holes:
    """How they are made: a quarter is whole, half of the others are boxes, half ellipses. Their middles lie anywhere, so that
    some reach over the edges: that is how pictures are continued.

    Attributes:
        count: of each picture; at least 1.
        seed: the run's.
    """

    count: int
    seed: int = 0

    def facts(self, number: int) -> list[object]:
        """What hole `number` of a picture depends on, besides the picture."""
        return [self.seed, number, WHOLE, SMALLEST]

    def hole(self, digest: str, number: int, height: int, width: int) -> NDArray[np.bool_]:
        """Hole `number` of the picture of that digest: (height, width), True where it is filled."""
        whole, shape, *box = generator(self.seed, f"hole {digest}", number, 0).random(6).tolist()
        if whole < WHOLE:
            return np.ones((height, width), np.bool_)
        rows, columns = _across(height, *box[:2])[:, None], _across(width, *box[2:])[None]
        inside = np.maximum(abs(rows), abs(columns)) if shape < 0.5 else np.hypot(rows, columns)
        return np.asarray(inside <= 1, np.bool_)


def _across(pixels: int, side: float, place: float) -> NDArray[np.float64]:
    """Where each pixel's middle stands along one side: -1 … 1 is inside.

    Args:
        side, place: even draws in [0, 1): how long the hole is, and where its middle is.
    """
    length = SMALLEST + (1 - SMALLEST) * side
    return ((np.arange(pixels) + 0.5) / pixels - place) / (length / 2)
