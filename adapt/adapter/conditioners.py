"""The learned conditioners of an adapter's folder, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.conditioners import CLASS, CONFIG_NAME, CONTROL, FOLDER, IMAGE

if TYPE_CHECKING:
    from conditioning import LearnedConditioner


def read_conditioners(folder: Path) -> dict[str, LearnedConditioner]:
    """The learned conditioners of an adapter's folder; none without `conditioning/`.

    Raises:
        AdapterError: one that is damaged, or of a part that is not known.
    """
    from conditioning import ClassConditioner, ImageConditioner

    readers = {CLASS: ClassConditioner.load, IMAGE: ImageConditioner.load, CONTROL: _control}
    found = sorted(path.name for path in (folder / FOLDER).glob("*") if path.is_dir())
    if strange := set(found) - set(readers):
        raise AdapterError("the adapter has a conditioner that this version does not know", given=", ".join(strange),
                           allowed=", ".join(readers), next="update adapt")  # fmt: skip
    try:
        return {part: readers[part](folder / FOLDER / part) for part in found}
    except ValueError as error:
        raise AdapterError(str(error), given=folder, next="take the whole adapter folder again") from error


def _control(folder: Path) -> LearnedConditioner:
    """A map on the first layer, or a ControlNet in diffusers' own files."""
    from adapt.adapter.control_net import ControlNet
    from conditioning import ControlConditioner

    try:
        told = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder.name}/ holds no control that can be read: {error}") from error
    return (
        ControlNet.load(folder) if isinstance(told, dict) and "_class_name" in told else ControlConditioner.load(folder)
    )
