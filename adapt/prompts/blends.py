"""`blend(a red apple:0.7|a banana:0.3)`: prompts whose encodings are mixed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from math import isfinite

from adapt.errors import SettingsError
from adapt.prompts.weights import NUMBER, Term, parts_of

NAME = "blend("
MARK = re.compile(r"\\.|[()\[\]|]", re.DOTALL)
SHARE = re.compile(rf"(?P<text>.*[^\\]|):\s*(?P<share>{NUMBER})\s*$", re.DOTALL)
ALLOWED = "blend(PROMPT:SHARE|PROMPT:SHARE), shares from 0"


def terms_of(text: str) -> tuple[Term, ...] | None:
    """The terms of a blend, their shares divided by the sum of all; None: the prompt is none.

    Raises:
        SettingsError: a share out of range, a blend in a blend or beside other words, and as `parts_of`.
    """
    text = text.strip()
    if not text.startswith(NAME):
        return None
    inner, rest = _split(text)
    if len(inner) == 1 and not SHARE.fullmatch(inner[0]):
        return None  # the word "blend", and something in brackets
    if rest:
        raise _wrong("a blend is the whole prompt", rest)
    shares = [_share(term) for term in inner]
    total = sum(share for _, share in shares)
    if total <= 0:
        raise _wrong("the shares of a blend add up to 0", text)
    return tuple(Term(parts_of(term), share / total) for term, share in shares)


def _split(text: str) -> tuple[list[str], str]:
    """What stands between the bars of a blend, and what stands behind it."""
    cuts, depth = [len(NAME)], 1
    for mark, place in _marks(text):
        depth += (mark in "([") - (mark in ")]")
        if depth == 0 or (depth == 1 and mark == "|"):
            cuts.append(place + 1)
        if depth == 0:
            return [text[a : b - 1] for a, b in pairwise(cuts)], text[place + 1 :]
    raise _wrong("a blend is not closed", text)


def _marks(text: str) -> Iterator[tuple[str, int]]:
    for found in MARK.finditer(text, len(NAME)):
        if len(found[0]) == 1:
            yield found[0], found.start()


def _share(term: str) -> tuple[str, float]:
    """A term's text and its share, 1 where none is given."""
    found = SHARE.fullmatch(term)
    text, share = (found["text"], float(found["share"])) if found else (term, 1.0)
    if not (isfinite(share) and share >= 0):
        raise _wrong("a share of a blend is out of range", term)
    if text.strip().startswith(NAME):
        raise _wrong("a blend holds no blend", term)
    return text.strip(), share


def _wrong(what: str, given: str) -> SettingsError:
    return SettingsError(f"a prompt cannot be read: {what}", given=given[:60], allowed=ALLOWED)
