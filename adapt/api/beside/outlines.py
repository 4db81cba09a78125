"""Masks: where a picture's subject is. From its alpha channel, from a plain background, or by rembg's models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from adapt.api.beside.proposal import Proposal, place_of
from adapt.data import find
from adapt.data.decode import alpha_of, decode
from adapt.data.folders import Reading
from adapt.data.masks import LABELS
from adapt.data.picture import Picture
from adapt.errors import DataError, SettingsError
from adapt.sampling.png import png_bytes

Outline = Callable[[bytes], Image.Image]
"""Encoded picture → its mask (L, the upright picture's size; white is the subject).

Raises DataError where this way finds none.
"""
SMALL = 256
"""Longest side in pixels at which a background is followed from the border."""
PLAIN = 0.8
"""Share of the border that must be of one colour for a background to be called plain."""
FEW, MOST = 0.02, 0.98
"""Shares of a picture beyond which a mask is worth a second look."""


@dataclass(frozen=True)
class Skipped:
    """A picture for which no mask was found.

    Attributes:
        picture: its name.
        reason: why.
    """

    picture: str
    reason: str


def wanting_masks(data: str | Path, replace: bool = False) -> list[Picture]:
    """The pictures of a source that have no mask; all of them with `replace`.

    Raises:
        DataError: the source cannot be read, or its pictures are in no folder.
    """
    pictures = [p for p in find(data, Reading(masks="files")).pictures if replace or p.mask is None]
    for picture in pictures:
        place_of(picture)
    return pictures


def propose_masks(
    pictures: Sequence[Picture], outline: Outline, grow: int = 0, feather: float = 0.0
) -> Iterator[Proposal | Skipped]:
    """A mask file for each picture, or why there is none.

    Args:
        grow: pixels by which the subject is made larger; below 0 smaller.
        feather: radius in pixels by which its edge is softened.
    """
    for picture in pictures:
        try:
            mask = _edged(outline(picture.read()), grow, feather)
        except DataError as error:
            yield Skipped(picture.name, error.message)
            continue
        share = float(np.asarray(mask, np.float32).mean()) / 255
        odd = (
            f" (look at it: {'hardly anything' if share < FEW else 'nearly everything'})"
            if not FEW < share < MOST
            else ""
        )
        yield Proposal(picture.name, _place(picture), png_bytes(mask), f"{share:.0%} of it{odd}")


def _place(picture: Picture) -> Path:
    """Where its mask is, or will be: `cat-masklabel.png`."""
    if (
        isinstance(picture.mask, Picture)
        and picture.mask.path is not None
        and picture.mask.path.suffix.lower() == ".png"
    ):
        return picture.mask.path
    path = place_of(picture)
    return path.with_name(f"{path.stem}{LABELS[0]}.png")


def _edged(mask: Image.Image, grow: int, feather: float) -> Image.Image:
    for _ in range(abs(grow)):
        mask = mask.filter(ImageFilter.MaxFilter(3) if grow > 0 else ImageFilter.MinFilter(3))
    return mask.filter(ImageFilter.GaussianBlur(feather)) if feather else mask


# ------------------------------------------------------------------------------------------------ ways
def by_alpha(content: bytes) -> Image.Image:
    """Opaque is the subject. Raises DataError without an alpha channel, or where it is opaque everywhere."""
    mask = alpha_of(content)
    if mask.getextrema() == (255, 255):
        raise DataError("it is opaque everywhere")
    return mask


def by_background(tolerance: int) -> Outline:
    """All but the plain background: what is reached from the border through its own colour.

    Args:
        tolerance: largest difference of a channel from the border's median colour, 0 … 255.
    """

    def outline(content: bytes) -> Image.Image:
        pixels = np.asarray(decode(content), np.int16)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        alike = np.abs(pixels - np.median(border, axis=0)).max(axis=2) <= tolerance
        of_border = np.concatenate([alike[0], alike[-1], alike[:, 0], alike[:, -1]])
        if of_border.mean() < PLAIN:
            raise DataError(f"its background is not plain: {of_border.mean():.0%} of the border is of one colour")
        return Image.fromarray(np.where(_reached(alike), 0, 255).astype(np.uint8), "L")

    return outline


def _reached(alike: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the pixels of the background's colour those that hang together with the border; found at a small size."""
    height, width = alike.shape
    scale = max(1, -(-max(height, width) // SMALL))
    small = alike[::scale, ::scale]
    reached = np.zeros_like(small)
    reached[0], reached[-1], reached[:, 0], reached[:, -1] = small[0], small[-1], small[:, 0], small[:, -1]
    while True:
        grown = _dilated(reached) & small
        if (grown == reached).all():
            break
        reached = grown
    wide = np.kron(_dilated(reached), np.ones((scale, scale), bool))[:height, :width]
    return wide & alike


def _dilated(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With its four neighbours."""
    grown = region.copy()
    grown[1:] |= region[:-1]
    grown[:-1] |= region[1:]
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    return grown


def by_rembg(model: str | None) -> Outline:
    """What rembg's model cuts out. It fetches its model when it is first asked.

    Raises:
        SettingsError: rembg is not installed.
    """
    try:
        from importlib import import_module

        rembg: Any = import_module("rembg")
    except ImportError as error:
        raise SettingsError("rembg is not installed", next="pip install 'rembg[cpu]', or --by background") from error
    session = rembg.new_session(model) if model else rembg.new_session()

    def outline(content: bytes) -> Image.Image:
        found = rembg.remove(decode(content), session=session, only_mask=True)
        return found.convert("L")  # type: ignore[no-any-return]

    return outline
