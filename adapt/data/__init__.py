"""Pictures and captions: found, judged, decoded, split, encoded into a cache. Knows no model: an `Encoder` comes in.

What needs torch is loaded when it is first used: finding and judging pictures works without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# At once, not lazily: these functions have their modules' names, which a later import would put in their place.
from adapt.data.decode import decode, fit, pixels
from adapt.data.find import find
from adapt.data.folders import Reading
from adapt.data.judge import Finding, Judgement, judge
from adapt.data.picture import Found, Picture
from adapt.data.split import split

if TYPE_CHECKING:
    from adapt.data.cache import TensorCache, default_folder
    from adapt.data.encode import EncodedPictures

__all__ = [
    "EncodedPictures",
    "Finding",
    "Found",
    "Judgement",
    "Picture",
    "Reading",
    "TensorCache",
    "decode",
    "default_folder",
    "find",
    "fit",
    "judge",
    "pixels",
    "split",
]

_LATER = {"EncodedPictures": "encode", "TensorCache": "cache", "default_folder": "cache"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
