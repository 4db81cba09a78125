"""Colour names: which one a drawing mainly has, and the same drawing in another."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Colour:
    """A named colour as hue (degrees), saturation and value (both 0 … 1) of a flat fill that people call so."""

    hue: float
    saturation: float
    value: float


COLOURS = {
    "red": Colour(0, 0.80, 0.88),
    "orange": Colour(28, 0.85, 1.0),
    "yellow": Colour(50, 0.75, 1.0),
    "green": Colour(125, 0.65, 0.66),
    "blue": Colour(212, 0.75, 0.92),
    "purple": Colour(272, 0.60, 0.76),
    "pink": Colour(335, 0.42, 1.0),
    "brown": Colour(21, 0.56, 0.60),
}
NEAR = 26.0
"""Degrees of hue around the main one that belong to it: its shades and highlights."""

LEAST_SHARE = 0.45
"""Share of the drawn pixels that the main colour must have for the drawing to be called by it."""


@dataclass(frozen=True)
class Main:
    """The main colour of a drawing: median hue (degrees), saturation and value; its name."""

    hue: float
    saturation: float
    value: float

    @property
    def name(self) -> str:
        """The nearest of COLOURS."""
        return min(COLOURS, key=lambda name: self._distance(COLOURS[name]))

    def _distance(self, c: Colour) -> float:
        hue = abs(_turn(self.hue - c.hue)) / 40
        return float(hue**2 + ((self.saturation - c.saturation) / 0.4) ** 2 + ((self.value - c.value) / 0.3) ** 2)


def main_colour(drawing: Image.Image) -> Main | None:
    """The one hue that most of an RGBA drawing has, or None if no hue has LEAST_SHARE of it."""
    h, s, v, drawn = _planes(drawing)
    vivid = drawn & (s > 0.25) & (v > 0.2)
    if not vivid.any():
        return None
    counts = np.bincount((h[vivid] / 10).astype(int) % 36, minlength=36).astype(float)
    smooth = counts + np.roll(counts, 1) + np.roll(counts, -1)
    peak = float(smooth.argmax() * 10 + 5)
    own = vivid & (abs(_turn(h - peak)) < NEAR)
    if own.sum() < LEAST_SHARE * drawn.sum():
        return None
    hue = (peak + float(np.median(_turn(h[own] - peak)))) % 360
    return Main(hue, float(np.median(s[own])), float(np.median(v[own])))


def recolour(drawing: Image.Image, main: Main, colour: str) -> Image.Image:
    """The drawing with its main colour turned into `colour`; shades keep their distance, other hues stay."""
    goal = COLOURS[colour]
    h, s, v, _ = _planes(drawing)
    own = (abs(_turn(h - main.hue)) < NEAR) & (s > 0.12)
    hue = np.where(own, (goal.hue + 0.4 * _turn(h - main.hue)) % 360, h)
    saturation = np.where(own, np.clip(s * goal.saturation / main.saturation, 0, 1), s)
    value = np.where(own, np.clip(v * goal.value / main.value, 0, 1), v)
    planes = np.stack([hue / 360 * 255, saturation * 255, value * 255], -1).round().astype(np.uint8)
    painted = Image.fromarray(planes, "HSV").convert("RGB")
    painted.putalpha(drawing.getchannel("A"))
    return painted


def _planes(drawing: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hue (degrees), saturation, value (0 … 1) and whether a pixel is drawn; each (H, W)."""
    planes = np.asarray(drawing.convert("RGB").convert("HSV"), dtype=np.float32)
    drawn = np.asarray(drawing.getchannel("A")) > 128
    return planes[..., 0] / 255 * 360, planes[..., 1] / 255, planes[..., 2] / 255, drawn


def _turn(degrees: np.ndarray | float) -> np.ndarray:
    """The same angle in [-180, 180)."""
    return np.asarray((degrees + 180) % 360 - 180)
