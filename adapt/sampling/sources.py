"""Pictures that are edited: told to the base as they are, where other bases would draw over them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from adapt.backbones import Backbone
    from adapt.sampling.request import Request


class Given(TypedDict):
    """What `image` of a request is to a base.

    Attributes:
        image: what is drawn over.
        source: what is edited.
    """

    image: Image | None
    source: Image | None


def given(request: Request, backbone: Backbone) -> Given:
    """What is drawn over, and what is edited.

    Raises:
        SettingsError: a base that edits and no picture, or settings of drawing over one.
    """
    if not backbone.takes_source:
        return {"image": request.image, "source": None}
    if request.image is None and backbone.needs_source:
        raise SettingsError("the base edits pictures, and there is none", given=backbone.reference,
                            next="--image FILE is what is edited, the prompt says how")  # fmt: skip
    for name, value in (("strength", request.strength), ("mask", request.mask)):
        if value is not None:
            raise SettingsError(f"{name} is for drawing over a picture, and the base edits it as a whole",
                                given=value if name == "strength" else name, next="leave it out")  # fmt: skip
    return {"image": None, "source": request.image}


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
