"""`--class` of `adapt generate` and `adapt sweep`: judged by the adapters' label maps before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.sampling.prompts import Row

EACH = "*"


def known_classes(adapters: Sequence[tuple[Path, float | None]]) -> tuple[str, ...]:
    """The classes that these adapters draw; none in most.

    Raises:
        SettingsError: two of them have some.
        AdapterError: see `Adapter.labels_of`.
    """
    if not adapters:
        return ()
    from adapt.adapter import Adapter

    found = {path: labels for path, scale in adapters if (labels := Adapter.labels_of(path)) and scale != 0}
    if len(found) > 1:
        raise SettingsError("two adapters with classes do not go together", given=", ".join(map(str, found)),
                            next="adapt classes A --merge B makes one of two that grew from the same")  # fmt: skip
    return next(iter(found.values()), ())


def rows_of(rows: Sequence[Row], asked: Sequence[str] | None, scale: float | None, labels: Sequence[str]) -> list[Row]:
    """Each class with each prompt, or without words where there is no prompt; `*` is every class.

    Raises:
        SettingsError: see `sampling.classes.judged`.
    """
    from adapt.sampling.classes import judged

    classes = _each(asked, labels)
    rows = list(rows) or ([{"prompt": ""}] if classes else [])
    told = [{"class_name": label, **row} for row in rows for label in classes] if classes else rows
    for row in told:
        judged(row.get("class_name"), row.get("class_scale", scale), labels)
    return list(told)


def classes_of(path: Path, asked: Sequence[str] | None, scale: float | None, told: bool) -> list[str] | None:
    """The classes of one adapter that are asked for; `*` is every class.

    Args:
        told: they may be told by something else, so that none need be given.

    Raises:
        SettingsError: see `sampling.classes.judged`.
        AdapterError: see `Adapter.labels_of`.
    """
    from adapt.sampling.classes import judged

    labels = known_classes([(path, None)])
    classes = _each(asked, labels)
    nobody: list[str | None] = [] if told and labels else [None]
    for label in classes or nobody:
        judged(label, scale, labels)
    return classes or None


def _each(asked: Sequence[str] | None, labels: Sequence[str]) -> list[str]:
    return [label for text in asked or () for label in (labels if text == EACH and labels else [text])]
