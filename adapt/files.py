"""Writing files so that they are whole or absent, and always the same bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY, OLD = ".tmp-", "-old-"
REFUSED = ".refused"
"""Behind the name of what failed its proof: readers go by `.safetensors`, and a run's adapter is called `adapter`."""


def sync(path: Path) -> None:
    """Forces a file or folder onto the disk; folders where the system can (not on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes | str) -> None:
    """Writes beside, syncs, renames over: a reader sees the old content or the new one."""
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def set_aside(path: Path, name: str | None = None) -> Path:
    """Renames what failed its proof to `<name>.refused`, or `.refused-2` … where that is taken: nothing is deleted, and no
    program takes it for a good one.

    Args:
        name: what it was to be called; default: as it is.
    """
    first = path.with_name(f"{name or path.name}{REFUSED}")
    numbers = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    target = next(each for each in itertools.chain([first], numbers) if not each.exists())
    path.rename(target)
    return target


def write_json(path: Path, value: Any) -> None:
    """Sorted, indented, ends with a newline."""
    write(path, dump_json(value))


def dump_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is complete, with `manifest.json` (sha256 of every file) inside.

    An older folder of that name is replaced at the end; on an error nothing is left behind and the older one stays.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{path.name}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        write_json(temporary / "manifest.json", _digests(temporary))
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Syncs everything in `new` and puts it in the place of `path`. No system swaps two folders in one step everywhere:
    after a kill between the two renames `sweep` puts the older one back."""
    for file in (*new.rglob("*"), new):
        sync(file)
    _swap(new, path)
    sync(path.parent)


def _digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(folder).as_posix(): digest(p) for p in files}


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}{OLD}{path.name}")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder written by `whole_folder`, or None when every file is, byte by byte, what was written."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest: Any = json.loads(raw)
    except (OSError, ValueError, RecursionError):
        return "manifest.json is missing or unreadable"
    if not isinstance(manifest, dict) or not manifest:
        return "manifest.json names no file"
    if dump_json(manifest).encode() != raw:
        return "manifest.json is not what was written"
    return next(filter(None, (_fault(folder / name, name, expected) for name, expected in manifest.items())), None)


def _fault(path: Path, name: str, expected: Any) -> str | None:
    try:
        if not path.is_file():
            return f"{name} is missing"
        return None if digest(path) == expected else f"{name} is not what was written"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"


def sweep(folder: Path) -> None:
    """Removes what an interrupted write left in a folder of ours, and puts back what it had already moved away."""
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        _, was_old, name = path.name.partition(OLD)
        if was_old and not (folder / name).exists():
            path.rename(folder / name)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with sorted tensors and metadata: equal contents are equal bytes.

    `safetensors.save` keeps header metadata in a hash map whose order changes from process to process.
    """
    from safetensors.torch import save

    sorted_tensors = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    raw = save(sorted_tensors, metadata={"format": "pt"})
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted({"format": "pt", **metadata}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]
