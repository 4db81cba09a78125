"""Classes by the names that users know: `goldfinch`, `finch:0.7,canary:0.3`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from adapt.data.wording import listed
from adapt.errors import SettingsError, did_you_mean

Mixture = tuple[tuple[str, float], ...]
"""Classes and their shares; empty: no class."""
SHARE = re.compile(r"^(.*):\s*([-+.\deE]+|inf|nan)$", re.S)
LARGEST = 10.0


def read(given: str | Mapping[str, float], labels: Sequence[str]) -> Mixture:
    """A class, or several with their shares (without a number: equal ones); "" is no class.

    Args:
        labels: those that there are.

    Raises:
        SettingsError: a class that there is not, or a share that is none.
    """
    if isinstance(given, Mapping):
        return tuple((_known(label, labels), _share(weight)) for label, weight in given.items())
    if not isinstance(given, str):
        raise SettingsError(
            "a class is a name, or names with shares", given=repr(given), allowed="finch:0.7,canary:0.3"
        )
    if not given.strip():
        return ()
    if given in labels:
        return ((given, 1.0),)
    pieces = [piece.strip() for piece in given.split(",")]
    found = [_piece(piece, labels) for piece in pieces]
    if double := [label for label, _ in found if [name for name, _ in found].count(label) > 1]:
        raise SettingsError("a class is given twice", given=double[0])
    even = 1 / len(found)
    return tuple((label, even if weight is None else weight) for label, weight in found)


def _piece(piece: str, labels: Sequence[str]) -> tuple[str, float | None]:
    if piece in labels:
        return piece, None
    match = SHARE.match(piece)
    if match is None:
        return _known(piece, labels), None
    return _known(match[1].strip(), labels), _share(match[2])


def _share(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = float("nan")
    if not isfinite(share) or abs(share) > LARGEST:
        raise SettingsError("a class's share is out of range", given=value, allowed=f"-{LARGEST:g} to {LARGEST:g}")
    return share


def _known(label: str, labels: Sequence[str]) -> str:
    if label in labels:
        return label
    near = did_you_mean(label, list(labels))
    raise SettingsError("the adapter knows no such class", given=label or "''", allowed=listed(list(labels)),
                        next=f"did you mean {near}?" if near else "adapt classes ADAPTER lists them")  # fmt: skip


def judged(given: str | Mapping[str, float] | None, scale: float | None, labels: Sequence[str]) -> Mixture:
    """What a request says of classes, with an adapter of these classes; without any there is nothing to say.

    Raises:
        SettingsError: a class without an adapter that has some, or an adapter that has some without a class.
    """
    if labels:
        if given is None:
            raise SettingsError("the adapter draws classes, and none is given", allowed=listed(list(labels)),
                                next=f"--class {labels[0]!r}, or --class '' for none of them")  # fmt: skip
        return read(given, labels)
    for name, value in (("class", given), ("class scale", scale)):
        if value is not None:
            raise SettingsError(f"there is no adapter that knows classes, so a {name} says nothing", given=value,
                                next="--adapter PATH of one that was trained with classes=true")  # fmt: skip
    return ()


def written(mixture: Mixture) -> str:
    """As `read` takes it."""
    if len(mixture) == 1 and mixture[0][1] == 1:
        return mixture[0][0]
    return ",".join(f"{label}:{weight:g}" for label, weight in mixture)
