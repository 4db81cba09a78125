"""A prompt without the marks in it, and where each character of that stands. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adapt.prompts.reading import PLAIN, read
from adapt.prompts.weights import TOKEN

Place = tuple[int, int]
"""First character in the prompt, and the one after the last: an escaped bracket has two."""


@dataclass(frozen=True)
class Unmarked:
    """What an encoder is given of a prompt.

    Attributes:
        prompt: as it is written.
        text: without brackets and weights.
        places: of each character of the text.
        blended: whether it is several prompts, whose words stand side by side nowhere: the text is then empty.
    """

    prompt: str
    text: str
    places: tuple[Place, ...]
    blended: bool = False

    @property
    def marked(self) -> bool:
        """Whether there are marks at all."""
        return self.text != self.prompt

    def written(self, start: int, end: int) -> Place:
        """Where a stretch of the text stands in the prompt."""
        return self.places[start][0], self.places[end - 1][1]

    def without(self, start: int, end: int) -> str:
        """The prompt without a stretch of its text, and a space in its place; marks stay."""
        gone = {number for first, last in self.places[start:end] for number in range(first, last)}
        first = min(gone)
        return "".join(" " if i == first else "" if i in gone else each for i, each in enumerate(self.prompt))


def unmarked(prompt: str, syntax: str) -> Unmarked:
    """The text that is read.

    Raises:
        SettingsError: a prompt that cannot be read.
    """
    if syntax == PLAIN:
        return Unmarked(prompt, prompt, tuple((i, i + 1) for i in range(len(prompt))))
    if len(read(prompt, syntax).terms) > 1:
        return Unmarked(prompt, "", (), blended=True)
    found = list(_characters(prompt))
    return Unmarked(prompt, "".join(each for each, _ in found), tuple(place for _, place in found))


def _characters(prompt: str) -> Iterator[tuple[str, Place]]:
    """Each character that is no mark, as `weights.parts_of` reads them."""
    for token in TOKEN.finditer(prompt):
        written, start = token[0], token.start()
        escaped = len(written) == 2 and written[0] == "\\"
        if escaped:
            yield written[1], (start, start + 2)
        elif written not in ("(", "[", ")", "]") and token["number"] is None:
            yield from ((each, (start + i, start + i + 1)) for i, each in enumerate(written))
