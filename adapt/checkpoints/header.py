"""Names, shapes and types of the tensors of a file, read without its numbers and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from adapt.errors import BackboneError


@dataclass(frozen=True)
class Entry:
    """Attributes:
    shape: of the tensor as it is used, whatever it is packed into.
    dtype: as the format calls it: `F32`, `BF16`, `F8_E4M3`, `Q4_K`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def numbers(self) -> int:
        return prod(self.shape)


def header(file: Path) -> Mapping[str, Entry]:
    """Name → shape and type, of a `.safetensors` or a `.gguf` file.

    Raises:
        BackboneError: it is cut off, or none; the package `gguf` is missing.
    """
    try:
        state = file.stat()
    except OSError as error:
        raise BackboneError("no such checkpoint", given=file) from error
    return (_of_gguf if file.suffix == ".gguf" else _of_safetensors)(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _of_safetensors(file: Path, size: int, _: int) -> Mapping[str, Entry]:
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            told: dict[str, Any] = json.loads(opened.read(length) if length < 2**28 else b"")
        told.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in told.values()), default=0)
        found = {name: Entry(tuple(entry["shape"]), str(entry["dtype"])) for name, entry in told.items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise BackboneError("weights that cannot be read", given=file, next="download it again") from error
    if size != 8 + length + end:
        given = f"{file} ({size} of {8 + length + end} bytes)"
        raise BackboneError("the base is not whole: weights are cut off", given=given, next="download it again")
    return found


@lru_cache(maxsize=16)
def _of_gguf(file: Path, size: int, _: int) -> Mapping[str, Entry]:
    require_gguf(file)
    from gguf import GGUFReader

    try:
        return {
            tensor.name: Entry(tuple(int(n) for n in reversed(tensor.shape)), tensor.tensor_type.name)
            for tensor in GGUFReader(file).tensors
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise BackboneError(
            "no GGUF file, or one that is cut off", given=f"{file} ({size} bytes)", next="download it again"
        ) from error


def require_gguf(file: Path) -> None:
    """Raises `BackboneError` when the package that reads GGUF is not installed."""
    if find_spec("gguf") is None:
        raise BackboneError(
            "a .gguf file needs the package gguf, which is not there",
            given=file,
            next="pip install gguf (or 'adapt-diffusion[quant]')",
        )
