"""Variants of a picture: cut elsewhere, a little recoloured. Each is a function of (seed, picture, number) alone.

So all of them can be encoded before step 1, and the Plan chooses among them. Variant 0 is the plain centre crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.data.buckets import CENTRE
from adapt.data.draws import generator

LUMA = np.array([0.299, 0.587, 0.114])
"""Brightness of red, green and blue (ITU-R BT.601)."""
STRENGTH = 0.2
"""Largest relative change of brightness, contrast and saturation at colour = 1."""
TURN = 0.05
"""Largest change of hue at colour = 1, in turns of the colour circle: 18°."""


@dataclass(frozen=True)
class Colour:
    """A change of colours; the default is none.

    Attributes:
        brightness, contrast, saturation: factors.
        hue: turns, -0.5 … 0.5.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def numbers(self) -> list[float]:
        """As a list."""
        return [self.brightness, self.contrast, self.saturation, self.hue]

    def applied(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) in [0, 255] → the same, in this order: hue, saturation, contrast about the mean brightness, brightness."""
        if self == UNCHANGED:
            return image
        grey = np.outer(np.ones(3), LUMA)
        matrix = (grey + self.saturation * (np.eye(3) - grey)) @ turned(self.hue)
        x = image @ matrix.T
        x = (self.contrast * x + (1 - self.contrast) * (x @ LUMA).mean()) * self.brightness
        rounded: NDArray[np.uint8] = np.rint(x).clip(0, 255).astype(np.uint8)
        return rounded


UNCHANGED = Colour()


@dataclass(frozen=True)
class Variant:
    """What is done with a picture.

    Attributes:
        at: where it is cut, see `crop_box`.
        colour: what is done with its colours.
        moment: where a clip is cut out of a longer one: 0 is its beginning, 1 its end.
    """

    at: tuple[float, float] = CENTRE
    colour: Colour = UNCHANGED
    moment: float = 0.5


@dataclass(frozen=True)
class Augmentation:
    """How the variants of a picture are made.

    Attributes:
        variants: how many there are, the plain one with them; at least 1.
        random_crop: whether they are cut anywhere, evenly, instead of in the middle.
        colour: how much colours change at most, 0 … 1; each change is even in its range.
        seed: the run's.
    """

    variants: int = 1
    random_crop: bool = False
    colour: float = 0.0
    seed: int = 0

    def variant(self, digest: str, number: int) -> Variant:
        """Variant `number` of the picture of that digest."""
        if number == 0:
            return Variant()
        across, down, *draws, moment = generator(self.seed, f"variant {digest}", number, 0).random(7).tolist()
        b, c, s, h = ((2 * u - 1) * self.colour for u in draws)
        colour = Colour(1 + STRENGTH * b, 1 + STRENGTH * c, 1 + STRENGTH * s, TURN * h)
        return Variant((across, down), colour, moment) if self.random_crop else Variant(CENTRE, colour)


def turned(hue: float) -> NDArray[np.float64]:
    """The (3, 3) matrix that turns colours about the grey axis (Rodrigues' formula): grey stays as it is."""
    angle = 2 * math.pi * hue
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)


PLAIN = Augmentation()
"""Every picture as it is, cut in the middle."""
