"""How alike two pictures are, and how sharp one is: small numbers taken of each picture once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Indices = NDArray[np.int64]
SIDE = 16
"""A difference hash of 16 × 16 bits: does the brightness rise to the right?"""
BYTES = SIDE * SIDE // 8
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
    """Pairs of names whose hashes differ in at most `NEAR` bits: for each name the first that it is near to, and enough
    others that all which are near, or near to the same, are connected. Each pair, and all of them, in the order of `hashes`.

    Hashes that differ in 12 bits agree in at least one of 13 bands: only those are compared. A band takes bits from all over
    the picture, because many pictures are plain at the same edge.
    """
    names, places = list(hashes), dict[int, list[int]]()
    for place, value in enumerate(hashes.values()):
        places.setdefault(value, []).append(place)  # the same pictures are compared once
    if len(names) < 2:
        return []
    links = _Links(len(places))
    links.search(np.frombuffer(b"".join(value.to_bytes(BYTES, "big") for value in places), np.uint8).reshape(-1, BYTES))
    held = list(places.values())
    pairs = {(held[a][0], held[b][0]) for a, b in links.made}
    pairs |= {(held[first][0], b) for first, same in zip(links.first.tolist(), held, strict=True) for b in same}
    return [(names[a], names[b]) for a, b in sorted(pairs) if a != b]


class _Links:
    """What is near to what, of different hashes.

    Attributes:
        first: the first that each is near to, itself where there is no earlier one (n,).
        made: pairs that connect all that are near, or near to the same.
    """

    def __init__(self, count: int) -> None:
        self.first, self._root = np.arange(count), np.arange(count)
        self.made: list[tuple[int, int]] = []

    def search(self, codes: NDArray[np.uint8]) -> None:
        """Compares hashes (n, 32) that agree in a band."""
        columns, bits = _columns(codes), np.unpackbits(codes, axis=1)
        for band in range(NEAR + 1):
            chosen = bits[:, band :: NEAR + 1]
            for left, right in _equal(chosen @ (1 << np.arange(chosen.shape[1]))):
                new = (self._root[left] != self._root[right]) | (left < self.first[right])
                left, right = _near(columns, left[new], right[new])
                if len(left):
                    np.minimum.at(self.first, right, left)
                    self._connect(left, right)

    def _connect(self, left: Indices, right: Indices) -> None:
        apart = self._root[left] != self._root[right]
        for a, b in zip(left[apart].tolist(), right[apart].tolist(), strict=True):
            one, other = self._top(a), self._top(b)
            if one != other:
                self._root[max(one, other)] = min(one, other)
                self.made.append((a, b))
        while apart.any() and not np.array_equal(flat := self._root[self._root], self._root):
            self._root = flat

    def _top(self, index: int) -> int:
        while self._root[index] != index:
            index = int(self._root[index])
        return index


def _columns(codes: NDArray[np.uint8]) -> list[NDArray[np.uint64]]:
    """Words of the hashes (n,), those first in which they differ most: they sort out most."""
    words, share = np.ascontiguousarray(codes).view(np.uint64), np.unpackbits(codes, axis=1).mean(0)
    told = (share * (1 - share)).reshape(words.shape[1], -1).sum(1)
    return [words[:, word].copy() for word in np.argsort(-told)]


def _near(columns: list[NDArray[np.uint64]], left: Indices, right: Indices) -> tuple[Indices, Indices]:
    """Those of these pairs that differ in few bits."""
    apart = np.zeros(len(left), np.int64)
    for column in columns:
        apart = apart + np.bitwise_count(column[left] ^ column[right])
        kept = np.flatnonzero(apart <= NEAR)
        left, right, apart = left[kept], right[kept], apart[kept]
    return left, right


def _equal(keys: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Every two places of equal keys, once: neighbours in the sorted order, then those two apart, and so on."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    here = np.arange(len(order))
    for distance in range(1, len(order)):
        here = here[: np.searchsorted(here, len(order) - distance)]
        here = here[ordered[here] == ordered[here + distance]]
        if len(here) == 0:
            return
        yield order[here], order[here + distance]
