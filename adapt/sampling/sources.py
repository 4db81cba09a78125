"""Pictures that are edited or have holes: told to the base, where other bases would draw over them. Imports no torch."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, TypedDict

from adapt.errors import SettingsError

ROUNDED = 0.1
"""Relative difference of aspects that rounding to whole latents may leave in small drawings."""

if TYPE_CHECKING:
    from PIL.Image import Image

    from adapt.backbones import Backbone
    from adapt.sampling.request import Drawing, Request


class Given(TypedDict):
    """What `image` of a request is to a base.

    Attributes:
        image: what is drawn over.
        mask: where it is drawn over; None: everywhere.
        source: what is edited, or has a hole.
        hole: of `source`, where it is filled; None: there is no hole, or all is one.
    """

    image: Image | None
    mask: Image | None
    source: Image | None
    hole: Image | None


def given(request: Request, backbone: Backbone) -> Given:
    """What is drawn over, and what is edited.

    Raises:
        SettingsError: a base that edits and no picture, or settings of drawing over one; one that fills holes and no mask.
    """
    if not backbone.takes_source and not _edited(request, backbone):
        return {"image": request.image, "mask": request.mask, "source": None, "hole": None}
    if backbone.fills:
        return _filled(request)
    if request.image is None and backbone.needs_source:
        raise SettingsError("the base edits pictures, and there is none", given=backbone.reference,
                            next="--image FILE is what is edited, the prompt says how")  # fmt: skip
    for name, value in (("strength", request.strength), ("mask", request.mask)):
        if value is not None:
            raise SettingsError(f"{name} is for drawing over a picture, and the base edits it as a whole",
                                given=value if name == "strength" else name, next="leave it out")  # fmt: skip
    return {"image": None, "mask": None, "source": request.image, "hole": None}


def _edited(request: Request, backbone: Backbone) -> bool:
    """Whether a base that draws and edits is given a picture and nothing that says how to draw over it."""
    drawn_over = request.strength is not None or request.mask is not None
    return backbone.entry.edits_too and request.image is not None and not drawn_over


def _filled(request: Request) -> Given:
    """Where it starts part of the way, it starts from the picture as well."""
    if request.image is not None and request.mask is None:
        raise SettingsError("the base fills holes, and is not told where", given="an image without a mask",
                            next="--mask FILE, white where it is filled")  # fmt: skip
    part_of_the_way = request.strength is not None and request.strength < 1
    return {
        "image": request.image if part_of_the_way else None,
        "mask": None,
        "source": request.image,
        "hole": request.mask,
    }


def size_of(source: Image, drawing: Drawing, backbone: Backbone) -> tuple[int, int]:
    """(height, width) of what is edited: the drawing's; where it may have another shape, as many pixels in its own."""
    height, width = drawing.height, drawing.width
    aspect = source.width / source.height
    if not backbone.source_of_any_size or abs(aspect * height / width - 1) <= ROUNDED:
        return height, width
    side, factor = sqrt(height * width), backbone.multiple
    both = (side / sqrt(aspect), side * sqrt(aspect))
    down, across = (max(1, round(each / factor)) * factor for each in both)
    return down, across


def scale_of(asked: float | None, guidance_scale: float, backbone: Backbone) -> float:
    """How strongly the picture guides by itself. Off with the words' guidance, as in the pipelines, unless it is asked for.

    Raises:
        SettingsError: the base has no such guidance.
    """
    own = backbone.image_guidance_scale
    if own is None:
        if asked is not None:
            raise SettingsError("the base has no guidance by its picture", given=f"image_guidance_scale {asked:g}",
                                next="leave it out")  # fmt: skip
        return 1.0
    return float(asked if asked is not None else own if guidance_scale > 1 else 1.0)
