"""The regular files of a folder, whatever else lies there."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})


@dataclass
class Walk:
    """What a folder holds.

    Attributes:
        files: relative name with `/` → path, sorted by name; regular files only, hidden ones left out.
        links: names in `files` that are symbolic links.
        broken: names of links that lead nowhere.
        unreadable: names of folders that cannot be listed.
    """

    files: dict[str, Path] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def walk(root: Path, deep: bool = True) -> Walk:
    """All regular files below `root`, or directly in it.

    Each folder is visited once: links to folders after all real folders, so that a loop ends and a folder keeps its real
    name. Pipes, sockets, devices and hidden names are skipped.
    """
    found, seen = Walk(), set[tuple[int, int]]()
    real, linked = deque([("", root)]), deque[tuple[str, Path]]()
    while real or linked:
        prefix, folder = (real or linked).popleft()
        identity = folder_identity(folder)
        if identity in seen:
            continue
        if identity is not None:
            seen.add(identity)
        for name, path, is_link, is_folder in _entries(prefix, folder, found):
            if is_folder:
                if deep:
                    (linked if is_link else real).append((name + "/", path))
            else:
                found.files[name] = path
                found.links |= {name} if is_link else set()
    found.files = dict(sorted(found.files.items()))
    found.broken.sort()
    found.unreadable.sort()
    return found


def folder_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file or folder; None where the file system has no inodes."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def suffix(name: str) -> str:
    """`.png` of `cat.PNG`."""
    return PurePosixPath(name).suffix.lower()


def stem(name: str) -> str:
    """The name without its ending, folder included, letters composed."""
    return normalize("NFC", str(PurePosixPath(name).with_suffix("")))


def _entries(prefix: str, folder: Path, found: Walk) -> list[tuple[str, Path, bool, bool]]:
    """(name, path, is a link, is a folder) of what is worth a look, sorted by name."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names as strings, without one Path object each
    except OSError:
        found.unreadable.append(prefix.rstrip("/") or ".")
        return []
    entries = []
    for name in names:
        if name.startswith(".") or name in SYSTEM_FOLDERS:
            continue
        path = folder / name
        try:
            mode = path.stat().st_mode
        except OSError:
            found.broken.append(prefix + name)
            continue
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            entries.append((prefix + name, path, path.is_symlink(), stat.S_ISDIR(mode)))
    return entries
