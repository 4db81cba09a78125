"""Learned conditioners in an adapter's folder: `conditioning/<part>/`, one folder a part of the condition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError

if TYPE_CHECKING:
    from conditioning import LearnedConditioner

FOLDER, CLASS, IMAGE, CONTROL = "conditioning", "class", "image", "control"
CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"


def write_conditioners(folder: Path, conditioners: Mapping[str, LearnedConditioner]) -> None:
    """Writes each below the adapter's folder; equal ones give equal bytes."""
    for part, conditioner in conditioners.items():
        conditioner.save(folder / FOLDER / part)


def labels_in(folder: Path) -> tuple[str, ...]:
    """The classes of an adapter's folder, in their order; none without any. Needs no torch.

    Raises:
        AdapterError: a label map that cannot be read.
    """
    file = folder / FOLDER / CLASS / CONFIG_NAME
    if not file.is_file():
        return ()
    try:
        labels = json.loads(file.read_text("utf-8"))["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise TypeError("labels are texts")
        return tuple(labels)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError("the adapter's label map cannot be read", given=file) from error
