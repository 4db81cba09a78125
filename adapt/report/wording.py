"""Text that came from the user, so that it can be shown: what would reorder, hide or break it is written out."""

from __future__ import annotations

import unicodedata

BIDI = {*map(chr, (0x061C, 0x200E, 0x200F)), *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Characters that change the direction of what follows, so that a text reads as something else."""
LONGEST = 400


def shown(value: object, longest: int = LONGEST) -> str:
    """One line: control characters, changes of direction and what is no text as escapes; long ones cut. Escapes no HTML:
    the template does."""
    text = " ".join(str(value).encode("utf-8", "backslashreplace").decode().split())
    text = "".join(_escaped(c) for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escaped(character: str) -> str:
    hidden = character in BIDI or unicodedata.category(character) in ("Cc", "Cn", "Co")
    return f"\\u{ord(character):04x}" if hidden else character


def figure(value: object, digits: int = 3) -> str:
    """A number with so many significant digits; a dash for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.{digits}g}"
