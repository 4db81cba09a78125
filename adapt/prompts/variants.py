"""Templates → prompts: one by chance that a seed decides, or every one.

Chance is a pure function of (seed, key, template): a picture that is drawn again has the same words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import accumulate, permutations, product
from math import factorial, prod

from adapt.errors import SettingsError
from adapt.prompts.grammar import Choice, Option, Template, Wildcard, parse
from adapt.prompts.wildcards import Wildcards

MOST_VARIANTS = 10_000

Names = tuple[str, ...]
"""Wildcards that stand around a place, the outermost first."""


def picked(text: str, seed: int, key: str = "", wildcards: Wildcards | None = None) -> str:
    """One prompt of a template.

    Args:
        seed: of the picture.
        key: tells templates of one picture apart, such as prompt and negative prompt.

    Raises:
        SettingsError, DataError: a template or a wildcard that cannot be read.
    """
    template = parse(text)
    if all(isinstance(part, str) for part in template):
        return "".join(map(str, template))
    number = int.from_bytes(sha256(f"{seed} {key} {text}".encode()).digest())
    return _Chance(random.Random(number), wildcards or Wildcards()).text(template)


def every(text: str, wildcards: Wildcards | None = None) -> list[str]:
    """Every prompt of a template, each once, those of the first choice changing slowest.

    Raises:
        SettingsError, DataError: as `picked`, and more than `MOST_VARIANTS` of them.
    """
    template, known = parse(text), wildcards or Wildcards()
    number = _count(template, known)
    if number > MOST_VARIANTS:
        raise SettingsError(
            "a prompt has too many variants to draw them all", given=f"{number} of {text[:60]!r}", allowed=MOST_VARIANTS,
            next="leave --all-variants out, and ask for as many as you want with --count",
        )  # fmt: skip
    return list(dict.fromkeys(_all(template, known)))


class _Chance:
    """Chooses; `random.Random.random` gives the same numbers in every version of Python."""

    def __init__(self, source: random.Random, wildcards: Wildcards) -> None:
        self.source, self.wildcards = source, wildcards

    def text(self, template: Template, inside: Names = ()) -> str:
        return "".join(part if isinstance(part, str) else self._chosen(part, inside) for part in template)

    def _chosen(self, part: Choice | Wildcard, inside: Names) -> str:
        options, low, high, inside = _open(part, self.wildcards, inside)
        left, texts = list(options), []
        for _ in range(low + int(self.source.random() * (high - low + 1))):
            option = left.pop(self._place([option.weight for option in left]))
            texts.append(self.text(option.template, inside))
        return _separator(part).join(texts)

    def _place(self, weights: Sequence[float]) -> int:
        """One of the places, each as often as its weight says."""
        sums = list(accumulate(weights))
        drawn = self.source.random() * sums[-1]
        return next((place for place, upper in enumerate(sums) if drawn < upper), len(sums) - 1)


def _open(part: Choice | Wildcard, wildcards: Wildcards, inside: Names) -> tuple[tuple[Option, ...], int, int, Names]:
    """The options that have a weight, how many are chosen at least and at most, and the wildcards that led here.

    `{2$$__animal__}` chooses two lines of the file.
    """
    name = _name(part)
    if name in inside:
        raise SettingsError("wildcards stand for each other without end", given=" → ".join([*inside, name]))
    options = wildcards.options(name) if name else part.options if isinstance(part, Choice) else ()
    possible = tuple(option for option in options if option.weight) or options
    low, high = (part.low, part.high) if isinstance(part, Choice) else (1, 1)
    most = len(possible) if high is None else min(high, len(possible))
    return possible, min(low, most), most, (*inside, name) if name else inside


def _name(part: Choice | Wildcard) -> str:
    """Of the wildcard whose lines are chosen from; "": of none."""
    if isinstance(part, Wildcard):
        return part.name
    only = part.options[0].template if len(part.options) == 1 else ()
    return only[0].name if len(only) == 1 and isinstance(only[0], Wildcard) else ""


def _separator(part: Choice | Wildcard) -> str:
    return part.separator if isinstance(part, Choice) else ""


def _all(template: Template, wildcards: Wildcards, inside: Names = ()) -> Iterator[str]:
    parts = [[part] if isinstance(part, str) else _each(part, wildcards, inside) for part in template]
    return map("".join, product(*parts))


def _each(part: Choice | Wildcard, wildcards: Wildcards, inside: Names) -> list[str]:
    options, low, high, inside = _open(part, wildcards, inside)
    texts = [list(_all(option.template, wildcards, inside)) for option in options]
    chosen = (order for count in range(low, high + 1) for order in permutations(texts, count))
    joined = (_separator(part).join(row) for order in chosen for row in product(*order))
    return list(dict.fromkeys(joined))


def _count(template: Template, wildcards: Wildcards, inside: Names = ()) -> int:
    """How many there are at most, without writing them down."""
    return prod(_count_of(part, wildcards, inside) for part in template if not isinstance(part, str))


def _count_of(part: Choice | Wildcard, wildcards: Wildcards, inside: Names) -> int:
    """Σ over the counts k of k! · e_k(numbers of texts of the options), e_k the elementary symmetric polynomial."""
    options, low, high, inside = _open(part, wildcards, inside)
    symmetric = [1, *[0] * high]
    for option in options:
        texts = _count(option.template, wildcards, inside)
        for k in range(high, 0, -1):
            symmetric[k] += symmetric[k - 1] * texts
    return sum(factorial(k) * symmetric[k] for k in range(low, high + 1))
