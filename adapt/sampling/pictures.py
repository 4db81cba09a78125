"""Pictures and masks that a user hands in. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from adapt.errors import DataError

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """A user's picture as RGB: upright (EXIF orientation), transparency on white, the first frame of an animation.

    Raises:
        DataError: not there, or no whole picture.
    """
    picture = _upright(source)
    if picture.has_transparency_data:
        picture = _on(picture, "white")
    return picture.convert("RGB")


def load_mask(source: str | Path | Image.Image) -> Image.Image:
    """A user's mask as greys; white is repainted, so transparency counts as black.

    Raises:
        DataError: not there, or no whole picture.
    """
    picture = _upright(source)
    if picture.has_transparency_data:
        picture = _on(picture, "black")
    return picture.convert("L")


def if_given(
    load: Callable[[str | Path | Image.Image], Image.Image], source: str | Path | Image.Image | None
) -> Image.Image | None:
    """`load(source)`; None where there is none."""
    return None if source is None else load(source)


def _upright(source: str | Path | Image.Image) -> Image.Image:
    picture = source if isinstance(source, Image.Image) else _opened(Path(source))
    picture = ImageOps.exif_transpose(picture)
    return _eight_bit(picture) if picture.mode.startswith("I") else picture


def _opened(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError("no such picture", given=path)
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy() if picture.mode != "P" else picture.convert("RGBA")
    except UNREADABLE as error:
        raise DataError(f"the picture cannot be read: {error}", given=path,
                        next="open it in a picture editor and save it as PNG") from error  # fmt: skip


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit greys scaled to 8 bit; Pillow would cut them off at 255."""
    return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _on(picture: Image.Image, color: str) -> Image.Image:
    above = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, color), above).convert("RGB")
