"""What a backbone is told by prompts, which are read with weights where the family can take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapt.backbones.base import Backbone
from adapt.backbones.readers import MOST_CHUNKS, chunks_of, encode, require_skip
from adapt.errors import SettingsError
from adapt.prompts import PLAIN, Reading, read
from adapt.types import Sizes
from conditioning import Condition

AS_WRITTEN = Reading()


def told(
    backbone: Backbone,
    texts: Sequence[str],
    reading: Reading = AS_WRITTEN,
    sizes: Sequence[Sizes] | None = None,
    guidance: float | None = None,
) -> Condition:
    """One row a prompt. In families without readers, and where `reading` says so, a prompt is a caption.

    Args:
        texts: of equally many chunks; otherwise the shorter ones are filled up with chunks that say nothing.
        sizes, guidance: as in `Backbone.condition`.

    Raises:
        SettingsError: a prompt that cannot be read.
    """
    readers, plain = backbone.readers, reading.syntax == PLAIN
    if not readers or (plain and not reading.clip_skip):
        return backbone.condition(texts, sizes, guidance)
    with torch.no_grad():
        prompts = [read(text, reading.syntax) for text in texts]
        part = encode(readers, prompts, reading.clip_skip, most=1 if plain else MOST_CHUNKS)
        return backbone.assembled(part, sizes, backbone.embedded_guidance if guidance is None else guidance)


def nothing(backbone: Backbone, rows: int, reading: Reading = AS_WRITTEN, beside: Condition | None = None) -> Condition:
    """The family's null, from the same layer as the prompts.

    Args:
        beside: what is drawn, one row each, where it is for that.
    """
    if reading.clip_skip and backbone.null_kind == "empty":
        return told(backbone, [""] * rows, reading)
    return backbone.null(rows) if beside is None else backbone.null_beside(beside)


def chunks(backbone: Backbone, text: str, reading: Reading = AS_WRITTEN) -> int:
    """How often its encoder is asked for a prompt."""
    if reading.syntax == PLAIN or not backbone.readers:
        return 1
    return chunks_of(backbone.readers, read(text))


def require_readable(backbone: Backbone, text: str, reading: Reading = AS_WRITTEN) -> None:
    """Raises `SettingsError` for a prompt that cannot be read or is too long, and for layers that cannot be left out.

    With the syntax `plain` a prompt is cut off where it is too long, as a caption is in training.
    """
    require_skip(backbone.readers, reading.clip_skip)
    if reading.syntax == PLAIN or not text:
        return
    tokens, most = _length(backbone, text, reading)
    if tokens > most:
        raise SettingsError(
            "the prompt is longer than the text encoder reads", given=f"{text[:40]}…, {tokens} tokens", allowed=most,
            next="shorten it, or --prompt-syntax plain cuts it off",
        )  # fmt: skip


def _length(backbone: Backbone, text: str, reading: Reading) -> tuple[int, int]:
    """Tokens of a prompt in whole chunks, and how many are read at most."""
    if not backbone.readers:
        return backbone.count_tokens(text)
    length = backbone.readers[0].length
    return chunks(backbone, text, reading) * length, MOST_CHUNKS * length
