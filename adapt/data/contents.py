"""What is known of each picture's file: its digest and its size, in a few bytes a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from adapt.data.buckets import Size
from adapt.data.decode import size_of
from adapt.data.picture import Picture
from adapt.errors import DataError


class Contents:
    """sha256 and size in pixels of each file, as they were when it was judged, else when they were first asked for.

    Args:
        pictures: judged ones; a file is read here only where judging has left no digest and size.
        size_of: a file's bytes → its size.
    """

    def __init__(self, pictures: Sequence[Picture], size_of: Callable[[bytes], Size] = size_of) -> None:
        self._pictures, self._size_of = pictures, size_of
        self._digests = np.zeros((len(pictures), 32), np.uint8)
        self._sizes = np.zeros((len(pictures), 2), np.int32)

    def digest(self, index: int) -> str:
        """sha256 of the file."""
        self._know(index)
        return bytes(self._digests[index]).hex()

    def size(self, index: int) -> Size:
        """Width and height, upright."""
        self._know(index)
        width, height = self._sizes[index].tolist()
        return width, height

    def picture(self, index: int) -> Picture:
        """Whose file it is."""
        return self._pictures[index]

    def read(self, index: int) -> bytes:
        """The file.

        Raises:
            DataError: it cannot be read, or is not what it was.
        """
        data = self._pictures[index].read()
        if hashlib.sha256(data).hexdigest() != self.digest(index):
            raise DataError(
                "A picture has changed since the start", given=self._pictures[index].name, next="start again"
            )
        return data

    def _know(self, index: int) -> None:
        if self._sizes[index].any():
            return
        picture = self._pictures[index]
        digest, size = picture.digest, picture.size
        if digest is None or size is None:
            data = picture.read()
            digest = hashlib.sha256(data).hexdigest()
            size = self._named(picture, data)
        self._digests[index], self._sizes[index] = np.frombuffer(bytes.fromhex(digest), np.uint8), size

    def _named(self, picture: Picture, data: bytes) -> Size:
        try:
            return self._size_of(data)
        except DataError as error:
            raise DataError(f"A picture {error.message}", given=picture.name, next=error.next) from error
