"""Random numbers without a state: counter-based, by (seed, what is drawn, step, position). Imports no torch."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


def generator(seed: int, stream: str, step: int, position: int) -> np.random.Generator:
    """Random numbers that depend on these four and on nothing else. `stream` names what is drawn."""
    return np.random.Generator(np.random.Philox(key=list(_key(seed, stream)), counter=[0, 0, position, step]))


@lru_cache(4096)
def _key(seed: int, stream: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
