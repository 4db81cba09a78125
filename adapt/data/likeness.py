"""How alike two pictures are, and how sharp one is: small numbers taken of each picture once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from PIL import Image

SIDE = 16
"""A difference hash of 16 × 16 bits: does the brightness rise to the right?"""
NEAR = 12
"""Hashes of 256 bits that differ in so many at most show the same picture: scaled, recompressed, slightly edited."""
LARGEST_SIDE = 256
"""Pixels at which sharpness is measured, so that it can be compared between pictures."""


def difference_hash(image: Image.Image) -> int:
    """256 bits that stay nearly the same when a picture is scaled, recompressed or recoloured a little (dHash)."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS), np.int16)
    bits = grey[:, 1:] > grey[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the brightness (0 … 255) at 256 px or less: 0 for a plain surface, hundreds and more for
    pictures with edges (Pech-Pacheco et al. 2000)."""
    grey = image.convert("L")
    grey.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    x = np.asarray(grey, np.float64)
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
    return float(laplacian.var())


def near_pairs(hashes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of names whose hashes differ in at most `NEAR` bits, each in the order of `hashes`.

    Hashes that differ in 12 bits agree in at least one of 13 bands: only those are compared.
    """
    names = defaultdict[int, list[str]](list)
    for name, value in hashes.items():
        names[value].append(name)
    near = {pair for values in _buckets(list(names)) for pair in combinations(values, 2) if _close(*pair)}
    pairs = {(a, b) for left, right in near for a in names[left] for b in names[right]}
    pairs |= {pair for same in names.values() for pair in combinations(same, 2)}
    place = {name: number for number, name in enumerate(hashes)}
    return sorted((_sorted(pair, place) for pair in pairs), key=lambda pair: (place[pair[0]], place[pair[1]]))


def _buckets(values: list[int]) -> Iterator[list[int]]:
    """Values that agree in one band."""
    width = -(-SIDE * SIDE // (NEAR + 1))
    for band in range(NEAR + 1):
        buckets = defaultdict[int, list[int]](list)
        for value in values:
            buckets[(value >> (band * width)) & ((1 << width) - 1)].append(value)
        yield from buckets.values()


def _close(a: int, b: int) -> bool:
    return (a ^ b).bit_count() <= NEAR


def _sorted(pair: tuple[str, str], place: Mapping[str, int]) -> tuple[str, str]:
    a, b = pair
    return (a, b) if place[a] < place[b] else (b, a)
