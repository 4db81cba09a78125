"""Adapter files: one file a dialect, pure functions on named tensors and metadata. The dialect is told by the keys."""

from __future__ import annotations

from pathlib import Path

from adapt.formats.diffusers_lora import FILE_NAME, check_file, read_lora, write_lora
from adapt.formats.kohya import is_kohya, read_kohya, write_kohya
from adapt.formats.lora_weights import LoraWeights, Pair


def read(path: Path) -> LoraWeights:
    """Reads and judges an adapter file of any dialect that is known here, told by its keys.

    Raises:
        AdapterError: see `read_lora` and `read_kohya`.
    """
    return read_kohya(path) if is_kohya(check_file(path)) else read_lora(path)


__all__ = ["FILE_NAME", "LoraWeights", "Pair", "read", "read_kohya", "read_lora", "write_kohya", "write_lora"]
