"""Which characters of a caption each token is about."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from adapt.errors import SettingsError

Span = tuple[int, int]
"""(first character, after the last one); (0, 0): no character."""
NOTHING: Span = (0, 0)


def columns_of(pipeline: Any, tokenizer: str, caption: str, limit: int | None = None) -> list[Span]:
    """One span a token, as the pipeline's encoder reads the caption; padding is left out.

    Args:
        tokenizer: the component's name.
        limit: most tokens; None: the tokenizer's own.

    Raises:
        SettingsError: a tokenizer that does not say it.
    """
    return columns_of_text(pipeline, getattr(pipeline, tokenizer), caption, limit, special=True)


def columns_of_text(
    pipeline: Any, reader: Any, caption: str, limit: int | None = None, *, special: bool = False
) -> list[Span]:
    """The same of a tokenizer and a stretch of text; `special` as in `spans_of`."""
    text = said(pipeline, reader, caption)
    spans = spans_of(reader, text, limit, special=special)
    places = places_of(text, caption)
    return [(places[first], places[end - 1] + 1) if end > first else NOTHING for first, end in spans]


def spans_of(reader: Any, text: str, limit: int | None = None, *, special: bool = True) -> list[Span]:
    """One span of the text a token, cut as the encoder cuts.

    Args:
        special: with the tokens that the tokenizer puts around it.
    """
    if not getattr(reader, "is_fast", False):
        raise SettingsError("the tokenizer does not say which characters its tokens are", given=type(reader).__name__)
    found = reader(
        text, add_special_tokens=special, return_offsets_mapping=True, truncation=True,
        max_length=limit or reader.model_max_length, verbose=False,
    )  # fmt: skip
    return [(int(first), int(end)) for first, end in found.offset_mapping]


def said(pipeline: Any, reader: Any, caption: str) -> str:
    """The caption as it is read: a learned word of several vectors is written out (`<me> <me>_1`)."""
    convert = getattr(pipeline, "maybe_convert_prompt", None)
    return caption if convert is None else str(convert(caption, reader))


def places_of(text: str, caption: str) -> Sequence[int]:
    """For each character of the text the one of the caption that it stands for; what was written in belongs to the one before."""
    if text == caption:
        return range(len(text))
    places: list[int] = []
    for kind, first, end, start, stop in SequenceMatcher(None, caption, text, autojunk=False).get_opcodes():
        places += range(first, end) if kind == "equal" else [max(first - 1, 0)] * (stop - start)
    return places
