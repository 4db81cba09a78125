"""Clips that were drawn. What shows and writes pictures asks these two functions, and clips go along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt.data.media.frames import contact_sheet


@dataclass(frozen=True, eq=False)
class Clip:
    """Attributes:
    frames: (frames, height, width, 3) in [0, 255].
    fps: frames a second.
    """

    frames: NDArray[np.uint8]
    fps: float


Drawn = Image.Image | Clip
"""A picture, or a clip where the base makes clips."""


def as_picture(drawn: Drawn) -> Image.Image:
    """The picture; of a clip a contact sheet of some frames."""
    return contact_sheet(drawn.frames) if isinstance(drawn, Clip) else drawn
