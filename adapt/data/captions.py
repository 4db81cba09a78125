"""Caption text: what a file or a table cell says, one caption a line or list item."""

from __future__ import annotations

import re
from pathlib import Path

LARGEST_CAPTION_FILE = 2**20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_SIDES = re.compile(r"(?<![^\W_])(left|right)(most|wards?|hand(ed)?)?(?![^\W_])", re.IGNORECASE)


def clean(text: str) -> str:
    """One line: control characters become spaces, lone surrogates (which no tokenizer takes) become `?`."""
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).strip()


def captions_of(value: object) -> tuple[str, ...]:
    """Captions of a table cell: text, a number, a list of them, or nothing; empty ones are left out.

    Raises:
        TypeError: the cell holds something else.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(caption for item in value for caption in captions_of(item))
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        caption = clean(str(value))
        return (caption,) if caption else ()
    raise TypeError(f"a caption is text or a list of texts, not {type(value).__name__}")


def caption_of_label(label: str) -> str:
    """`tabby-cat` → `tabby cat`."""
    return clean(re.sub(r"[-_]+", " ", label))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        ValueError: it is not UTF-8, holds NUL bytes or is too large; the message says what and at which byte.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LARGEST_CAPTION_FILE:
        raise ValueError(f"larger than {LARGEST_CAPTION_FILE >> 10} KiB")
    return decode_text(path.read_bytes())


def decode_text(data: bytes) -> str:
    """UTF-8 bytes, with or without a byte order mark, as text.

    Raises:
        ValueError: as for `read_text`.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("UTF-16, not UTF-8, at byte 0")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if "\0" in text:
        # UTF-16 of English text without a mark is valid UTF-8, with a NUL after each letter.
        raise ValueError(f"NUL at byte {data.index(0)}: not UTF-8 text")
    return text.removeprefix("\ufeff")


def read_captions(path: Path) -> tuple[str, ...]:
    """Each non-empty line of a sidecar file is one caption. Raises as `read_text`."""
    return tuple(caption for line in read_text(path).splitlines() if (caption := clean(line)))


def names_a_side(caption: str) -> bool:
    """Whether it tells left from right (`looking left`, `right_hand`, `rightmost`), which is wrong of the mirrored picture.

    English words only. A `right` that means correct counts as well: a picture that is not mirrored is no loss.
    """
    return _SIDES.search(caption) is not None


def holds(caption: str, trigger: str) -> bool:
    """Whether the trigger stands there as a word of its own: `cat` does not in `catalogue`."""
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption) is not None
