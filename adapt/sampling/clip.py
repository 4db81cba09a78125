"""Clips and sounds that were drawn, and what shows them where pictures are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt.data.media.frames import contact_sheet
from adapt.data.media.waves import spectrogram


@dataclass(frozen=True, eq=False)
class Clip:
    """Attributes:
    frames: (frames, height, width, 3) in [0, 255].
    fps: frames a second.
    """

    frames: NDArray[np.uint8]
    fps: float


@dataclass(frozen=True, eq=False)
class Sound:
    """Attributes:
    samples: (channels, samples) in [-1, 1], float32.
    rate: samples a second.
    """

    samples: NDArray[np.float32]
    rate: int


Drawn = Image.Image | Clip | Sound
"""A picture; a clip or a sound where the base makes such."""


def as_picture(drawn: Drawn) -> Image.Image:
    """The picture; of a clip a contact sheet of some frames, of a sound its spectrogram."""
    if isinstance(drawn, Sound):
        return spectrogram(drawn.samples)
    return contact_sheet(drawn.frames) if isinstance(drawn, Clip) else drawn
