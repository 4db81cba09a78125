"""Where commands that make an adapter put it: a folder, or one file of diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import RunError

if TYPE_CHECKING:
    from adapt.adapter import Adapter


def require_free(output: Path) -> None:
    """Raises `RunError` when something is there: nothing of the user's is overwritten."""
    if output.exists():
        raise RunError("something is there already", given=output, next="give another --output")


def save(adapter: Adapter, output: Path) -> None:
    """An adapter's folder, whole or not at all; a `.safetensors` path gives the weights alone, of two experts a file each."""
    from adapt import files

    if output.suffix == ".safetensors":
        for file in adapter.files(output):
            require_free(file)
        adapter.export(output, "diffusers")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_folder(output) as temporary:
        adapter.save(temporary)
