"""Names in messages: the first few and how many more."""

from __future__ import annotations

from collections.abc import Iterable


def printable(name: str) -> str:
    """The name on one line; bytes that are no text (surrogates in file names) as escapes: printing never fails."""
    return " ".join(name.encode("utf-8", "backslashreplace").decode().split())


def listed(names: Iterable[str], first: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - first} more" if len(every) > first else ""
    return ", ".join(every[:first]) + more
