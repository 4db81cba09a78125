"""Heat over a picture: where a word is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ((20, 11, 52), (106, 23, 110), (188, 55, 84), (243, 120, 25), (252, 255, 164))
"""From cold to hot, evenly: inferno's."""
SMALLEST = 256
"""Smaller pictures are enlarged to it, or the heat has no room."""
FLAT = 0.25
"""Heat that differs by less than this share of its mean is drawn the fainter: a flat map is no find."""


def overlay(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The picture, dimmed, with a word's heat on it.

    Args:
        heat: (H, W), ≥ 0, on whatever grid.
    """
    size = _enlarged(picture)
    spread, mean = float(heat.max() - heat.min()), float(heat.mean())
    scaled = (heat - heat.min()) / spread if spread > 0 else np.zeros_like(heat)
    strong = Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    amount = np.clip(np.asarray(strong), 0, 1)
    faint = min(1.0, spread / (FLAT * mean)) if mean > 0 else 0.0
    share = (0.8 * faint * amount)[..., None]
    below = np.asarray(_dimmed(picture.resize(size, Image.Resampling.BICUBIC)), np.float32)
    return Image.fromarray((below * (1 - share) + _coloured(amount) * share).round().astype(np.uint8))


def _enlarged(picture: Image.Image) -> tuple[int, int]:
    times = max(1, -(-SMALLEST // min(picture.size)))
    return picture.width * times, picture.height * times


def _dimmed(picture: Image.Image) -> Image.Image:
    """Nearly grey and half as bright: heat stands out, on white too."""
    grey = Image.blend(picture, picture.convert("L").convert("RGB"), 0.6)
    return Image.blend(grey, Image.new("RGB", grey.size), 0.45)


def _coloured(amount: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) in 0 … 1 → (H, W, 3) in 0 … 255."""
    known = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(amount, known, [colour[c] for colour in COLOURS]) for c in range(3)]
    return np.stack(channels, -1).astype(np.float32)
