"""Tensors on disk by the digest of what they were computed from: computed once, checked at each reading.

folder/ab/abcdef….safetensors        the first two digits of the key, then the key
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from adapt.data.cache_folder import default_folder, key_of
from adapt.data.tidy import Use
from adapt.errors import DataError

__all__ = ["TensorCache", "default_folder", "key_of"]

_KEY = re.compile(r"[0-9a-f]{16,128}")


class TensorCache:
    """Named tensors by key. Several processes may use one folder at once; nothing is held in memory.

    An entry is one safetensors file with a digest of its tensors. It is written beside and renamed; it is not fsynced,
    because an entry that a crash has torn is noticed by its digest and computed again.

    Args:
        folder: made when the first entry is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._use: Use | None = None

    def use(self) -> None:
        """From now on, while this object lives, no program removes what is read or written here to make room.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            self._use = Use(self.folder)
        except OSError as error:
            raise _unwritable(error, f"{self.folder}") from error

    def path(self, key: str) -> Path:
        """Where the entry of a key lies. Raises ValueError when the key is no hexadecimal digest."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a cache key is a hexadecimal digest, not {key!r}")
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors on the CPU as they were put, bit for bit; None when there are none or the entry is damaged."""
        path = self.path(key)
        try:
            data = path.read_bytes()
            if self._use is not None:
                self._use.touch(path)
            tensors = load(data)
            metadata = _metadata(data)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None
        intact = metadata.get("key") == key and metadata.get("digest") == _digest(tensors)
        return tensors if intact else None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes an entry, in place of one that is there.

        Raises:
            DataError: the folder cannot be written, or the disk is full. No partial entry stays.
        """
        own = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
        data = save(own, metadata={"key": key, "digest": _digest(own)})
        path = self.path(key)
        beside = path.with_name(f".{key[:16]}-{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_bytes(data)
                _rename(beside, path)
            finally:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(error, f"{len(data)} bytes to {self.folder}") from error


def _unwritable(error: OSError, given: str) -> DataError:
    todo = "free space there, or set ADAPT_CACHE to another folder"
    return DataError(f"The cache cannot be written: {error.strerror or error}", given=given, next=todo)


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except PermissionError:
        # Windows refuses while another process reads the target, which then holds the same entry.
        if not (sys.platform == "win32" and target.exists()):
            raise


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes of length, then a JSON header."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(header["__metadata__"])


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(json.dumps([name, str(x.dtype), list(x.shape)]).encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
