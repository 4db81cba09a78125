"""Weights in prompts, in A1111's syntax: `(word:1.3)`, `(word)`, `[word]`, and `BREAK`; and blends of whole prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

from adapt.errors import SettingsError

LOUDER = 1.1
"""What one pair of round brackets multiplies by, and one pair of square brackets divides by."""
HEAVIEST = 10.0
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|[+-]?inf(?:inity)?"
TOKEN = re.compile(rf"\\[()\[\]\\|:]|:\s*(?P<number>{NUMBER})\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")
EDITED = re.compile(rf"\||:\s*(?:{NUMBER})\s*$")
BREAK = re.compile(r"\s*\bBREAK\b\s*")
LITERAL = r"write \(, \), \[ and \] for brackets that are text, or give --prompt-syntax plain"


@dataclass(frozen=True)
class Piece:
    """A stretch of text; `weight` 1 is as written, 0 as if nothing were said there."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Term:
    """One of the prompts that are blended.

    Attributes:
        parts: pieces; each part begins a chunk of its own (`BREAK`).
        share: of the blend; the shares of a prompt add up to 1.
    """

    parts: tuple[tuple[Piece, ...], ...]
    share: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A prompt read: one term, or several that are blended."""

    terms: tuple[Term, ...]

    @staticmethod
    def of(text: str) -> Prompt:
        """The text as it is."""
        return Prompt((Term(((Piece(text),) if text else (),)),))


def parts_of(text: str) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of a prompt, in parts.

    Raises:
        SettingsError: brackets that do not match, a weight out of range, or A1111's editing over the steps.
    """
    parts: list[list[Piece]] = [[]]
    for piece in _joined(_pieces(text)):
        first, *others = BREAK.split(piece.text)
        parts[-1].append(Piece(first, piece.weight))
        parts += [[Piece(other, piece.weight)] for other in others]
    return tuple(tuple(piece for piece in part if piece.text) for part in parts)


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Neighbours of one weight are one piece, so that words are cut into tokens as they are without brackets."""
    for weight, group in groupby(pieces, lambda piece: piece.weight):
        yield Piece("".join(piece.text for piece in group), weight)


@dataclass(frozen=True)
class _Open:
    """An open bracket: which, where in the text, and before which piece."""

    bracket: str
    place: int
    piece: int


def _pieces(text: str) -> list[Piece]:
    found: list[Piece] = []
    opened: list[_Open] = []
    for token in TOKEN.finditer(text):
        written = token[0]
        if written in "([":
            opened.append(_Open(written, token.start(), len(found)))
        elif written[-1] in ")]" and written[0] != "\\":
            start = _closed(text, opened, token)
            factor = _factor(token)
            found[start:] = [_weighed(piece, factor, text) for piece in found[start:]]
        else:
            found.append(Piece(written[1:] if len(written) == 2 and written[0] == "\\" else written))
    if opened:
        _wrong("a bracket is not closed", text, opened[-1].place)
    return found


def _closed(text: str, opened: list[_Open], token: re.Match[str]) -> int:
    """The piece at which the bracket that is closed was opened."""
    end = token.end() - 1
    if not opened or opened[-1].bracket + text[end] not in ("()", "[]"):
        _wrong("a bracket closes nothing", text, end)
    start = opened.pop()
    if start.bracket == "[" and EDITED.search(text[start.place + 1 : end]):
        _wrong("[from:to:when] and [a|b] change a prompt between the steps, which adapt does not do", text, start.place)
    return start.piece


def _factor(token: re.Match[str]) -> float:
    return float(token["number"]) if token["number"] else LOUDER if token[0] == ")" else 1 / LOUDER


def _weighed(piece: Piece, factor: float, text: str) -> Piece:
    weight = piece.weight * factor
    if not 0 <= weight <= HEAVIEST:
        raise SettingsError(
            "a weight in a prompt is out of range", given=f"{weight:g} for {piece.text[:40]!r}",
            allowed=f"0 to {HEAVIEST:g}", next=f"to keep something away, --negative-prompt; {LITERAL}",
        )  # fmt: skip
    return Piece(piece.text, weight)


def _wrong(what: str, text: str, place: int) -> NoReturn:
    given = f"{text[max(0, place - 20) : place + 30]!r}, character {place + 1}"
    raise SettingsError(
        f"a prompt cannot be read: {what}", given=given, allowed="(word:1.3), (word), [word]", next=LITERAL
    )
