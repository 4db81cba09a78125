"""Protocols and small records that the packages share, so that siblings need not know each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from conditioning import Part


@dataclass(frozen=True)
class Sizes:
    """What was cut out of what: the micro-conditions of SDXL (Podell et al. 2023, arXiv 2307.01952, section 2.2).

    Attributes:
        original: height and width of the picture, in pixels.
        crop: pixels that are missing above and on the left, after the picture was resized and mirrored.
        target: height and width that it is trained or drawn at.
        fps: frames a second of a clip; None: the base's own.
    """

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]
    fps: float | None = None

    @staticmethod
    def whole(height: int, width: int, fps: float | None = None) -> Sizes:
        """Of a picture that is all there."""
        return Sizes((height, width), (0, 0), (height, width), fps)


class Encoder(Protocol):
    """What the data package needs of a backbone: pictures and captions → tensors, and keys for its caches."""

    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, *dims)."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Part:
        """Captions → the part that captions become, one row a caption."""
        ...

    def content_key(self, component: str) -> str:
        """Hexadecimal digest of a component's class, configuration and weights: what its cached outputs depend on."""
        ...


class TokenCounter(Protocol):
    """`count(caption) -> (tokens, limit)`: what the text encoder reads of a caption."""

    def __call__(self, caption: str) -> tuple[int, int]: ...
