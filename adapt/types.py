"""Protocols and small records that the packages share, so that siblings need not know each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from conditioning import Part


class Encoder(Protocol):
    """What the data package needs of a backbone: pictures and captions → tensors, and keys for its caches."""

    def encode_media(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] → mean and standard deviation of the scaled latents, each (B, C, *dims)."""
        ...

    def encode_text(self, captions: Sequence[str]) -> Part:
        """Captions → the part `text`, one row a caption."""
        ...

    def content_key(self, component: str) -> str:
        """Hexadecimal digest of a component's class, configuration and weights: what its cached outputs depend on."""
        ...


class TokenCounter(Protocol):
    """`count(caption) -> (tokens, limit)`: what the text encoder reads of a caption."""

    def __call__(self, caption: str) -> tuple[int, int]: ...
