"""A card says whether anybody has changed it since it was rendered, and can be told where it lives."""

from __future__ import annotations

import hashlib
import re

STAMP = re.compile(r"\n*<!-- rendered by adapt; ([0-9a-f]{16}) -->\s*$")
FENCE = re.compile(r"^```\w*\n.*?^```", re.M | re.S)


def stamped(text: str) -> str:
    """The card with a comment at its end (which no page shows) that holds a digest of what stands above it."""
    body = _body(text)
    return f"{body}\n\n<!-- rendered by adapt; {_digest(body)} -->\n"


def is_untouched(text: str) -> bool:
    """Whether it is as it was rendered: then it may be rendered anew without asking. Line ends do not count."""
    match = STAMP.search(text.replace("\r\n", "\n"))
    return match is not None and match[1] == _digest(_body(text))


def for_repository(text: str, old: str, new: str) -> str:
    """The card with `new` (`user/name`) in place of `old` in the code that it shows; prose is left alone. Keeps a valid stamp
    valid.

    Args:
        old: the folder's name, or the repository that it was pushed to before.
    """
    place = re.compile(rf"""(?<=["' ]){re.escape(old)}(?=["'/ \n@]|$)""")
    moved = FENCE.sub(lambda fence: place.sub(new, fence[0]), text)
    return stamped(moved) if is_untouched(text) else moved


def _body(text: str) -> str:
    return STAMP.sub("", text.replace("\r\n", "\n")).rstrip()


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
