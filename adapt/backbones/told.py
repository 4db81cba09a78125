"""What a backbone is told by prompts, which are read with weights where the family can take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapt.backbones.base import Backbone
from adapt.backbones.columns import NOTHING, Span, columns_of_text
from adapt.backbones.readers import MOST_CHUNKS, chunks_of, encode, require_skip
from adapt.errors import SettingsError
from adapt.prompts import PLAIN, Reading, Unmarked, read
from adapt.types import Sizes
from conditioning import Condition

AS_WRITTEN = Reading()
ALL = 10**6
"""Tokens that are never cut off: chunks are cut afterwards."""


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


def columns(backbone: Backbone, prompt: Unmarked, reading: Reading = AS_WRITTEN) -> Sequence[Span]:
    """Of each token that the denoiser is given of a prompt, the characters of its text that it is about; see
    `Backbone.columns`. Stretches of other weights are cut into tokens by themselves.

    Raises:
        SettingsError: a tokenizer that does not say it, or a blend.
    """
    if prompt.blended:
        raise SettingsError("words of a blend stand in several prompts", given=prompt.prompt[:60])
    if not prompt.marked and chunks(backbone, prompt.prompt, reading) == 1:
        return backbone.columns(prompt.text)
    first, found, start = backbone.readers[0], list[Span](), 0
    for part in read(prompt.prompt, reading.syntax).terms[0].parts:
        spans = list[Span]()
        for piece in part:
            start = prompt.text.index(piece.text, start)  # BREAK and the spaces around it are in no piece
            own = columns_of_text(first.pipeline, first.tokenizer, piece.text, ALL)
            spans += [(start + a, start + b) if b > a else NOTHING for a, b in own]
            start += len(piece.text)
        for at in range(0, max(1, len(spans)), first.room):
            chunk = spans[at : at + first.room]
            found += [NOTHING, *chunk, *[NOTHING] * (first.length - 1 - len(chunk))]
    return found


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
