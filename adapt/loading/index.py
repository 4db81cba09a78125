"""Which base a folder holds: its `model_index.json`, whole and of a family that is known. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapt.backbones.registry import family_of, known_pipelines
from adapt.checkpoints.packing import require_packages
from adapt.errors import BackboneError
from adapt.source import Source, composed, kept, source
from adapt.whole import require_whole

HALVES = {"KandinskyV22Pipeline": "its prior", "KandinskyV22PriorPipeline": "its decoder"}
"""Pipelines that are published apart and say nothing alone → what they lack."""


def at_hand(reference: str | None) -> str | None:
    """A base that is on this machine, whole, as what to load it by; None where it would have to be fetched, or is none."""
    if not reference:
        return None
    try:
        where = kept(reference)
        index_of(where)
    except (BackboneError, OSError):
        return None
    return composed(str(where.folder), variant=where.variant) if where.repository else reference


def require(reference: str) -> Path:
    """The folder with the configuration of a base that is there, whole and of a family that is known.

    Raises:
        BackboneError: it is not.
    """
    where = source(reference)
    index_of(where)
    return where.folder


def index_of(where: Source) -> dict[str, Any]:
    """The `model_index.json` of a base that is there, whole and of a family that is known.

    Raises:
        BackboneError: it is not.
    """
    contents = where.contents
    index = read_index(where.folder, weights=False)
    if contents and (family := family_of(index)):
        contents.require_family(family.name, family.title)
    require_whole(where, index)
    require_packages(where.folder, contents)
    return index


def read_index(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """The folder's `model_index.json`, its family known.

    Args:
        weights: whether the weights are in the folder too; those of a checkpoint in one file are not.

    Raises:
        BackboneError: not readable, or a pipeline that adapt does not know.
    """
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
        if not isinstance(index, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise BackboneError("model_index.json cannot be read", given=folder) from error
    if family_of(index) is None and (missing := HALVES.get(str(index.get("_class_name")))):
        raise BackboneError(
            f"the base is one half of a pipeline: {missing} is missing", given=folder,
            next="save both in one folder: docs/families.md, Bases in two parts",
        )  # fmt: skip
    if family_of(index) is None:
        raise BackboneError(
            "pipeline that adapt does not know yet",
            given=index.get("_class_name"),
            allowed=", ".join(sorted(known_pipelines())),
            next="adapt bases lists the families",
        )
    if weights:
        require_whole(Source(folder), index)
    return index
