"""Keeps a cache within its size: what was used longest ago goes first, and nothing that a running program uses.

folder/ab/….safetensors      entries: two levels deep; the time of change is the time of the last use
folder/users/….lock          one of each running program, held as long as it runs; its time is when that began
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

USERS = "users"
ABANDONED = 24 * 3600
"""Seconds after which a file that was being written is nobody's."""


class Use:
    """A program's use of a cache, from now until this object or the process ends.

    Args:
        folder: the cache's; made if need be.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        users = folder / USERS
        users.mkdir(parents=True, exist_ok=True)
        path = users / f"{uuid.uuid4().hex}.lock"
        self._lock = FileLock(path)
        self._lock.acquire()
        self.since = path.stat().st_mtime_ns  # by the clock of the disk, which may be another machine's

    def touch(self, path: Path) -> None:
        """Notes that an entry is used; once is enough."""
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns < self.since:
                os.utime(path)


@dataclass(frozen=True)
class Trimmed:
    """What was removed, and what is left, in bytes.

    Attributes:
        removed: files.
    """

    removed: int
    freed: int
    left: int


def trim(folder: Path, limit: int) -> Trimmed:
    """Removes what was used longest ago until at most `limit` bytes are left, or all that is left is in use.

    Entries that another program puts at the same time are new, and stay. What cannot be removed is left.
    """
    size = sum(entry.size for entry in _entries(folder))
    if size <= limit:
        return Trimmed(0, 0, size)
    horizon, removed, freed = _horizon(folder), 0, 0
    for entry in sorted(entry for entry in _entries(folder) if entry.idle(horizon)):
        if size - freed <= limit:
            break
        if entry.removed():
            removed, freed = removed + 1, freed + entry.size
    return Trimmed(removed, freed, size - freed)


@dataclass(frozen=True, order=True)
class _Entry:
    """A file of the cache, ordered by its last use (ns)."""

    used: int
    path: str
    size: int

    def idle(self, horizon: int) -> bool:
        """Whether no running program uses it; what is being written is somebody's for a day."""
        return self.used < (time.time_ns() - ABANDONED * 10**9 if self.path.endswith(".tmp") else horizon)

    def removed(self) -> bool:
        """Removes it, unless it was used meanwhile."""
        with contextlib.suppress(OSError):
            if Path(self.path).stat().st_mtime_ns == self.used:
                Path(self.path).unlink()
                return True
        return False


def _entries(folder: Path) -> Iterator[_Entry]:
    """Every file of the cache; those that vanish meanwhile are passed over."""
    for place in sorted(folder.glob("*/")):
        for entry in os.scandir(place):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield _Entry(status.st_mtime_ns, entry.path, status.st_size)


def _horizon(folder: Path) -> int:
    """When the running program that began first began (ns); locks of programs that have ended are removed."""
    earliest = time.time_ns() + ABANDONED * 10**9  # nobody: everything may go
    for path in (folder / USERS).glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            began, lock = path.stat().st_mtime_ns, FileLock(path)
            try:
                lock.acquire(timeout=0)
            except OSError:  # it is held, or another user's
                earliest = min(earliest, began)
            else:
                path.unlink()
                lock.release()
    return earliest
