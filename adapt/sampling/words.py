"""The words of a prompt, and the prompt without one. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapt.errors import SettingsError, did_you_mean
from adapt.prompts import PLAIN, Unmarked, unmarked

AROUND = ".,;:!?…\"'`´‘’“”«»()[]{}、。，：；！？（）「」"
"""Punctuation that is no part of the word that it stands at."""


@dataclass(frozen=True)
class Word:
    """A word of a prompt, or several in a row.

    Attributes:
        text: as the prompt has it.
        start, end: its first character, and the one after its last.
    """

    text: str
    start: int
    end: int


def words_of(prompt: str) -> list[Word]:
    """What stands between spaces, without the punctuation around it. Scripts without spaces are not taken apart."""
    found = []
    for match in re.finditer(r"\S+", prompt):
        left = len(match[0]) - len(match[0].lstrip(AROUND))
        text = match[0].strip(AROUND)
        if text:
            found.append(Word(text, match.start() + left, match.start() + left + len(text)))
    return found


def words_named(prompt: str, named: Sequence[str]) -> list[Word]:
    """The words that are asked for, in every place where they stand; several in a row count as one: `red fox`.

    Raises:
        SettingsError: one that is not in the prompt, with the words that are.
    """
    found: list[Word] = []
    for text in named:
        places = _places(prompt, text)
        if not places:
            known = list(dict.fromkeys(word.text for word in words_of(prompt)))
            near = did_you_mean(text, known)
            raise SettingsError(
                "the prompt has no such word", given=text, allowed=", ".join(known) or "none: the prompt is empty",
                next=f"did you mean {near}?" if near else None,
            )  # fmt: skip
        found += [word for word in places if word not in found]
    return found


def _places(prompt: str, text: str) -> list[Word]:
    """Where words in a row read like this, whatever the case and the spaces between."""
    wanted, words = [word.text.casefold() for word in words_of(text)], words_of(prompt)
    if not wanted:
        return []
    runs = [words[i : i + len(wanted)] for i in range(len(words) - len(wanted) + 1)]
    same = [run for run in runs if [word.text.casefold() for word in run] == wanted]
    return [Word(prompt[run[0].start : run[-1].end], run[0].start, run[-1].end) for run in same]


def without(prompt: str, word: Word) -> str:
    """`left_out` of a prompt that is text throughout."""
    return left_out(unmarked(prompt, PLAIN), word)


def left_out(prompt: Unmarked, word: Word) -> str:
    """The prompt that was written without this word: no comma is left without anything before it. A weight that it had alone
    weighs nothing then.

    Args:
        word: of the prompt's text.
    """
    left = prompt.without(word.start, word.end)
    left = re.sub(r"\s+([,;.!?])", r"\1", " ".join(left.split()))
    left = re.sub(r"([,;])(?:\s*[,;])+", r"\1", left)
    return left.strip(" ,;")
