"""Values that were used last, held in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from torch import Tensor

OVERHEAD = 1024
"""Bytes that a tensor takes besides its values, with its share of its entry: what counts with tiny pictures."""


class Recent:
    """The entries used last, by what was asked for, up to a number of bytes. What is asked for again costs no digest."""

    def __init__(self, memory: int) -> None:
        self._memory, self._used, self._lock = memory, 0, Lock()
        self._entries = OrderedDict[Hashable, dict[str, Tensor]]()

    def __call__(self, asked: Hashable, find: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The entry, else what `find` gives, which is kept."""
        entry = self._get(asked)
        if entry is None:
            entry = find()
            self._put(asked, entry)
        return entry

    def _get(self, asked: Hashable) -> dict[str, Tensor] | None:
        with self._lock:
            if asked in self._entries:
                self._entries.move_to_end(asked)
            return self._entries.get(asked)

    def _put(self, asked: Hashable, entry: dict[str, Tensor]) -> None:
        with self._lock:
            self._used += _bytes(entry) - _bytes(self._entries.pop(asked, {}))
            self._entries[asked] = entry
            while self._used > self._memory:
                self._used -= _bytes(self._entries.popitem(last=False)[1])


def _bytes(entry: dict[str, Tensor]) -> int:
    return sum(x.nbytes + OVERHEAD for x in entry.values())
