"""`--size`: `64` or `512x768`."""

from __future__ import annotations

import re

from adapt.errors import SettingsError

SIZE = re.compile(r"^(\d+)(?:x(\d+))?$")


def size_of(text: str | None) -> tuple[int | None, int | None]:
    """`64` or `512x768` → (width, height)."""
    if text is None:
        return None, None
    match = SIZE.match(text.strip().lower())
    if match is None:
        raise SettingsError("--size cannot be read", given=text, allowed="64 or WIDTHxHEIGHT, such as 512x768")
    return int(match[1]), int(match[2] or match[1])
