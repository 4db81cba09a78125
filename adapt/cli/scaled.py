"""`PATH[:SCALE]`: how several commands name an adapter and its strength."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from adapt.errors import AdapterError, SettingsError


def scaled_adapter(text: str) -> tuple[Path, float | None]:
    """`PATH[:SCALE]` → the path, which holds an adapter, and the scale. An adapter of the Hub is fetched."""
    from adapt.adapter import Adapter, here
    from adapt.fetch import reference

    path, scale = text, None
    head, _, tail = text.rpartition(":")
    if head and not Path(text).exists() and (Path(head).exists() or reference(head)):
        path, scale = head, scale_of(tail, text)
    found = here(path)
    Adapter.locate(found)
    return found, scale


def scale_of(tail: str, text: str) -> float:
    """What stands behind the colon. Raises `SettingsError` for what is no number."""
    try:
        scale = float(tail)
    except ValueError:
        scale = float("nan")
    if not isfinite(scale):
        raise SettingsError("the adapter's scale is no number", given=text, allowed="PATH:0.8; 1 as trained, 0 nothing")
    return scale


def base_of(given: str | None, adapters: Sequence[tuple[Path, float | None]]) -> str:
    """The given base, else the first adapter's, else icons.

    Raises:
        AdapterError: the adapter does not say what it was trained on.
    """
    if given is not None or not adapters:
        return given or "icons"
    from adapt.adapter import Adapter

    facts = Adapter.read_facts(adapters[0][0])
    reference = facts.base_reference
    if facts.base and reference is None:
        raise AdapterError("the adapter was trained on a local folder and does not say where it is",
                           given=adapters[0][0], next="--base FOLDER")  # fmt: skip
    return reference or "icons"
