"""Templates of prompts, in dynamicprompts' syntax: `{red|blue}`, `{2$$a|b|c}`, `{0.7::a|0.3::b}`, `__animal__`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from adapt.errors import SettingsError


@dataclass(frozen=True)
class Wildcard:
    """One line of the files that a name stands for."""

    name: str


@dataclass(frozen=True)
class Option:
    """One of the texts to choose from, and how often it is chosen: its weight over the sum of all, ≥ 0."""

    template: Template
    weight: float = 1.0


@dataclass(frozen=True)
class Choice:
    """`low` to `high` (None: all) different options, joined by `separator`."""

    options: tuple[Option, ...]
    low: int = 1
    high: int | None = 1
    separator: str = ","


Template = tuple[str | Choice | Wildcard, ...]
"""Texts and what is chosen between them, in the order of the prompt."""

ESCAPED = re.compile(r"\\([{}|$_%])")
NAME = re.compile(r"__((?:(?!__)[\w\-./* ])+)__")
BOUNDS = re.compile(r"\s*(\d*)(-?)(\d*)\$\$(?:([^${}]*)\$\$)?")
WEIGHT = re.compile(r"\s*(\d+\.?\d*|\.\d+)::")
UNKNOWN = {"${": "variables", "%{": "wrapping"}
SAMPLERS = "~!@"
DEEPEST = 50


def parse(text: str) -> Template:
    r"""A template read.

    Args:
        text: `\{`, `\}`, `\|`, `\$`, `\_` and `\%` are the characters themselves.

    Raises:
        SettingsError: brackets that do not match, numbers out of range, or what only dynamicprompts itself can do.
    """
    return _Parser(text).whole()


class _Parser:
    """Reads from left to right; `self.place` is where."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0

    def whole(self) -> Template:
        found = self._template(ends="")
        if self.place < len(self.text):
            self._wrong("a } closes nothing")
        return found

    def _template(self, ends: str) -> Template:
        """Up to one of `ends`, which is not read; a } always ends it."""
        parts: list[str | Choice | Wildcard] = []
        while self.place < len(self.text) and self.text[self.place] not in ends + "}":
            parts.append(self._part())
        return tuple(parts)

    def _part(self) -> str | Choice | Wildcard:
        text, place = self.text, self.place
        if strange := UNKNOWN.get(text[place : place + 2]):
            self._wrong(f"{strange} of dynamicprompts ({text[place : place + 2]}…}}) are not known here")
        if text[place] == "{":
            return self._choice()
        if name := NAME.match(text, place):
            self.place = name.end()
            return Wildcard(name[1])
        escaped = ESCAPED.match(text, place)
        self.place += 2 if escaped else 1
        return escaped[1] if escaped else text[place]

    def _choice(self) -> Choice:
        start, self.place, self.depth = self.place, self.place + 1, self.depth + 1
        if self.depth > DEEPEST:
            self._wrong(f"more than {DEEPEST} levels of brackets")
        if self.text[self.place : self.place + 1] in tuple(SAMPLERS):
            self._wrong("the marks ~, ! and @ of dynamicprompts are not known here: variants are by seed, or all")
        low, high, separator = self._bounds()
        options = [self._option()]
        while self.text[self.place : self.place + 1] == "|":
            self.place += 1
            options.append(self._option())
        if self.place == len(self.text):
            self.place = start
            self._wrong("a { is not closed")
        self.place, self.depth = self.place + 1, self.depth - 1
        if not any(option.weight for option in options):
            self._wrong("all weights of a choice are 0")
        return Choice(tuple(options), low, high, separator)

    def _bounds(self) -> tuple[int, int | None, str]:
        """How many are chosen at least and at most (None: all), and what joins them."""
        found = BOUNDS.match(self.text, self.place)
        if found is None or not (found[1] or found[3]):
            return 1, 1, ","
        self.place = found.end()
        low = int(found[1] or 1)
        high = (int(found[3]) if found[3] else None) if found[2] else low
        low, high = (low, high) if high is None else sorted((low, high))
        return low, high, "," if found[4] is None else found[4]

    def _option(self) -> Option:
        weight = WEIGHT.match(self.text, self.place)
        self.place = weight.end() if weight else self.place
        while self.text[self.place : self.place + 1].isspace():
            self.place += 1
        return Option(self._template(ends="|"), float(weight[1]) if weight else 1.0)

    def _wrong(self, what: str) -> NoReturn:
        given = self.text[max(0, self.place - 20) : self.place + 30]
        raise SettingsError(
            f"a prompt's variants cannot be read: {what}", given=given, allowed=r"{red|blue}, {2$$a|b|c}, __name__",
            next=r"write \{ and \} for brackets that are text",
        )  # fmt: skip
