"""Pictures: upright, on a background, in sRGB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import PIL

from adapt.data.buckets import Size
from adapt.data.decode import VERSION, colour_of, decode, examine, pixels, size_of
from adapt.data.likeness import difference_hash, sharpness
from adapt.data.look import Look
from adapt.data.picture import EXTENSIONS
from adapt.errors import DataError
from adapt.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.data.view import View

SMALLEST_SIDE = 16
"""Pixels. Smaller pictures (1 x 1 trackers, broken exports) teach nothing."""
NARROW = 3.0
"""A picture with a longer side of so many shorter ones loses most of itself in the centre crop."""
ANIMATED = ("animated", "is animated: its first frame is used")
TRANSPARENT = ("transparent", "is transparent in parts: the background colour shows there")


class Pictures:
    """See `Reader`.

    Args:
        background: colour behind transparent pixels.
    """

    noun, same, timed = "pictures", "shows the same pixels", False
    extensions: tuple[str, ...] = EXTENSIONS

    def __init__(self, medium: Medium, background: str) -> None:
        colour_of(background)
        self.medium, self.background = medium, background
        self.facts: list[object] = [VERSION, PIL.__version__, background]

    def look(self, data: bytes, file: str) -> Look:
        """See `Reader.look`."""
        decoded = examine(data, self.background)
        size = decoded.image.size
        require_large(size)
        digest = hashlib.sha256(f"{size}".encode() + decoded.image.tobytes()).hexdigest()
        remarks = (ANIMATED,) * decoded.animated + (TRANSPARENT,) * decoded.transparent
        likeness, sharp = difference_hash(decoded.image), sharpness(decoded.image)
        return Look(digest, size, remarks, decoded.transparent, likeness, sharp, file=file)

    def about(self, look: Look) -> Iterator[tuple[str, str]]:
        """See `Reader.about`."""
        yield from about_size(look.size, self.medium.side)

    def size_of(self, data: bytes) -> Size:
        """See `Reader.size_of`."""
        return size_of(data)

    def row(self, data: bytes, view: View) -> Tensor:
        """See `Reader.row`: (3, H, W)."""
        return pixels(view.shown(decode(data, self.background)))


def require_large(size: Size) -> None:
    """Raises DataError for what is too small to teach anything."""
    if min(size) < SMALLEST_SIDE:
        raise TooSmall(f"is {size[0]} x {size[1]} pixels: {SMALLEST_SIDE} or more a side are needed")


class TooSmall(DataError):
    """Readable, and too small or too short to be used."""


def about_size(size: Size, side: int) -> Iterator[tuple[str, str]]:
    """What bringing pixels of a size to a side does to them."""
    width, height = size
    if min(size) < side:
        yield "enlarged", f"is {width} x {height} pixels: it is enlarged to {side}"
    if max(size) > NARROW * min(size):
        yield "narrow", f"is {width} x {height} pixels: the centre crop leaves most of it out"
