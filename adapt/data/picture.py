"""A picture as it was found, not yet opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapt.data.wording import printable
from adapt.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST_FILE = 600 * 2**20
"""Bytes. 64 million pixels of four 16-bit channels are 512 MiB without compression: more is no picture we take."""


@dataclass(frozen=True)
class Picture:
    """One picture and what is known about it.

    Attributes:
        name: relative name with `/`, or `row-000012` of a table; unique in its data set; for messages.
        path: its file; None when a table holds the bytes.
        content: its bytes, encoded as PNG, JPEG …; None when they are in the file.
        captions: any number of captions; none means that it is trained as "".
        label: its class, or None.
    """

    name: str
    path: Path | None
    content: bytes | None
    captions: tuple[str, ...] = ()
    label: str | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            DataError: the file is gone, unreadable, or larger than `LARGEST_FILE`.
        """
        if self.content is not None:
            return self.content
        assert self.path is not None, "a picture has a file or its bytes"
        try:
            if self.path.stat().st_size > LARGEST_FILE:
                raise DataError("the file is too large", allowed=f"up to {LARGEST_FILE >> 20} MiB")
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", given=printable(self.name)) from error


@dataclass(frozen=True)
class Found:
    """The pictures of a source, sorted by name.

    Attributes:
        pictures: at least one.
        warnings: one line each; nothing that stops a training.
        kind: where the captions come from: `metadata`, `sidecars`, `classes`, `table` or `pictures` (there are none).
    """

    pictures: tuple[Picture, ...]
    warnings: tuple[str, ...]
    kind: str
