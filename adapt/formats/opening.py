"""A safetensors file judged before a tensor of it is touched: without torch, with a bound on what is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 16 * 2**20
SIZES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
"""Bytes of one number of each type that safetensors knows and torch can hold."""
FLOATS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Types that an adapter's weights can have."""


@dataclass(frozen=True)
class Entry:
    """A tensor as the header says: type, shape, and where its bytes are, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """Attributes:
    entries: by name, in the file's order.
    metadata: the file's own words.
    size: bytes before the tensors.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int


def check_file(path: Path) -> list[str]:
    """The names of the tensors of an adapter file that is there and whole; see `read_header`."""
    return list(read_header(path).entries)


def read_header(path: Path) -> Header:
    """What can be said of an adapter file without torch: it is there, it is safetensors, its header and length are whole, its
    tensors neither overlap nor leave gaps.

    Raises:
        AdapterError: see above.
    """
    _require_there(path)
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if length <= min(LARGEST_HEADER, total) else b""
    except OSError as error:
        raise AdapterError(f"the adapter cannot be read: {error.strerror}", given=path) from error
    if LARGEST_HEADER < length <= total - 8:
        raise AdapterError("the file's header is larger than an adapter's can be", given=f"{path} ({length} bytes)",
                           allowed=f"{LARGEST_HEADER} bytes")  # fmt: skip
    try:
        entries, metadata = _parsed(raw)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path) from error
    end = max((entry.stop for entry in entries.values()), default=0)
    if total != 8 + length + end:
        raise AdapterError(
            "the file is cut off",
            given=f"{path} ({total} of {8 + length + end} bytes)",
            next="copy or download it again",
        )
    _require_tiled(path, entries)
    return Header(entries, metadata, 8 + length)


def _require_there(path: Path) -> None:
    if not path.suffix and not path.exists():
        raise AdapterError("no such adapter", given=path)
    if path.suffix != ".safetensors":
        raise AdapterError(
            f"{path.suffix or 'such'} files are never read: they can run code when opened",
            given=path,
            allowed=".safetensors",
        )
    if not path.is_file():
        raise AdapterError("no such adapter", given=path)


def _damaged(path: Path) -> AdapterError:
    return AdapterError("the file is damaged, or no safetensors file", given=path, next="copy or download it again")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _parsed(raw: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    values = json.loads(raw, object_pairs_hook=_once)
    metadata = values.pop("__metadata__", None) or {}
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("metadata is text")
    return {name: _entry(value) for name, value in values.items()}, metadata


def _entry(value: Mapping[str, Any]) -> Entry:
    start, stop = value["data_offsets"]
    shape = tuple(value["shape"])
    if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)):
        raise ValueError("sizes are whole numbers")
    return Entry(str(value["dtype"]), shape, start, stop)


def _require_tiled(path: Path, entries: Mapping[str, Entry]) -> None:
    """Every tensor has the bytes that its shape asks for, one after the other."""
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.dtype not in SIZES:
            raise AdapterError("the file holds numbers of an unknown type", given=f"{entry.dtype} in {path}")
        if entry.start != end or entry.stop - entry.start != prod(entry.shape) * SIZES[entry.dtype]:
            raise _damaged(path)
        end = entry.stop


def require_floats(path: Path, header: Header) -> None:
    """Refuses weights that no adapter has: float64 and whole numbers. Single numbers such as alpha may be of any type."""
    for name, entry in header.entries.items():
        if entry.dtype not in FLOATS and prod(entry.shape) != 1:
            raise AdapterError(
                "the adapter's weights are of a type that no adapter has",
                given=f"{entry.dtype} in {name} of {path}",
                allowed=", ".join(FLOATS),
                next="save it again in float32, float16 or bfloat16",
            )


def open_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors (CPU) and the header's metadata of a checked safetensors file."""
    header = read_header(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(header.metadata)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"the file is damaged: {error}", given=path) from error
