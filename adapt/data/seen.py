"""Pictures as a run sees them: at which sizes, cut and mirrored how; and what is known of the pictures beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.data.augment import Augmentation
from adapt.data.buckets import Buckets, Size
from adapt.data.cache import TensorCache
from adapt.data.contents import Contents
from adapt.data.masks import mask_of
from adapt.data.media import Reader
from adapt.data.picture import Picture
from adapt.data.recent import Recent
from adapt.data.values import naming
from adapt.data.view import Sizes, View


class SeenPictures:
    """Examples: pictures at each resolution, one after the other. Of a picture itself less than a hundred bytes are held.

    Args:
        pictures: judged ones.
        shelves: the buckets of each resolution.
        cache: where values are kept.
        augmentation: how the variants of a picture are made.
        reader: how the files are read.
        memory: bytes of values that are held in memory at most.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        shelves: Sequence[Buckets],
        cache: TensorCache,
        augmentation: Augmentation,
        reader: Reader,
        memory: int,
    ) -> None:
        self.pictures, self.shelves, self.cache = tuple(pictures) * len(shelves), shelves, cache
        self.augmentation, self.reader = augmentation, reader
        self._contents = Contents(pictures, reader.size_of)
        self._sources = self._contents_beside([picture.source for picture in pictures])
        self._references = self._contents_beside([picture.reference for picture in pictures])
        self._nearest: dict[tuple[int, Size], Size] = {}
        self._masks: dict[int, str] = {}
        self._recent = Recent(memory)

    def _contents_beside(self, others: Sequence[Picture | None]) -> Contents:
        """Of pictures beside these; where there are none they cost nothing."""
        if not any(others):
            return self._contents
        return Contents([other or own for other, own in zip(others, self.pictures, strict=False)], self.reader.size_of)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.pictures)

    @property
    def count(self) -> int:
        """The number of pictures: of examples at the first resolution."""
        return len(self.pictures) // len(self.shelves)

    # ------------------------------------------------------------------------------------------------ what they are
    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of an example; the empty one when it has none."""
        return self.pictures[index].texts

    def size(self, index: int) -> Size:
        """Width and height that an example is brought to: its bucket."""
        shelf, number = divmod(index, self.count)
        if len(self.shelves[shelf].sizes) == 1:
            return self.shelves[shelf].sizes[0]
        own = self._contents.size(number)
        if (shelf, own) not in self._nearest:
            self._nearest[shelf, own] = self.shelves[shelf].nearest(own)
        return self._nearest[shelf, own]

    def buckets(self) -> tuple[tuple[Size, ...], NDArray[np.int64]]:
        """The sizes in use, smallest first, and the number of each example's own (n,)."""
        sizes = [self.size(index) for index in range(len(self))]
        used = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
        number = {size: k for k, size in enumerate(used)}
        return tuple(used), np.fromiter((number[size] for size in sizes), np.int64, len(sizes))

    def sizes(self, index: int, flip: bool = False, variant: int = 0) -> Sizes:
        """What of an example is seen, as numbers."""
        return self._view(index, flip, variant).sizes

    # ------------------------------------------------------------------------------------------------ how
    def _view(self, index: int, flip: bool, variant: int) -> View:
        number = index % self.count
        chosen = self.augmentation.variant(self._contents.digest(number), variant)
        flip = bool(flip) and self.pictures[index].flippable
        return View(self._contents.size(number), self.size(index), chosen, flip)

    def _of_source(self, number: int, view: View) -> View:
        """How the source of a picture is seen, which may be of another size."""
        return replace(view, original=self._sources.size(number))

    def _settings(self, view: View) -> list[object]:
        return [*self.reader.facts, *view.facts(self.reader.timed)]

    def _mask_on(self, number: int, view: View, height: int, width: int) -> dict[str, Tensor]:
        picture = self.pictures[number]
        with naming(picture):
            mask = mask_of(picture, view.original)
        assert mask is not None, "only pictures with a mask are asked"
        return {"area": torch.from_numpy(np.ascontiguousarray(view.area(mask, height, width)))[None]}

    def _mask_digest(self, number: int) -> str:
        """sha256 of the mask's file, as it was when first asked for."""
        mask = self.pictures[number].mask
        if number not in self._masks:
            self._masks[number] = sha256(mask.read()).hexdigest() if isinstance(mask, Picture) else str(mask)
        return self._masks[number]

    def _cached(self, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """From the cache, else computed and put there."""
        entry = self.cache.get(key)
        if entry is None:
            entry = compute()
            self.cache.put(key, entry)
        return entry
