"""A picture as it was found, not yet opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from adapt.data.captions import names_a_side
from adapt.data.tags import Tags, plain, wordings
from adapt.data.wording import printable
from adapt.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SOUNDS = (".wav", ".flac", ".mp3", ".ogg")
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".gif")
LARGEST_FILE = 600 * 2**20
"""Bytes. 64 million pixels of four 16-bit channels are 512 MiB without compression: more is no picture we take."""


class Content(Protocol):
    """Bytes inside something larger, read when they are asked for: a row of a table, a member of an archive."""

    def read(self) -> bytes:
        """The bytes. Raises DataError when they are gone."""
        ...


@dataclass(frozen=True)
class Span:
    """A piece of a file, such as a member of a tar archive.

    Attributes:
        path: the file.
        start: byte at which the piece begins.
        size: its length in bytes.
    """

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """The piece. Raises DataError when the file is gone, shorter than it was, or the piece too large."""
        _require_small(self.size)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except OSError as error:
            raise _unreadable(error, str(self.path)) from error
        if len(data) < self.size:
            raise DataError("is cut off: the archive ends before it", given=self.path, next="copy the archive again")
        return data


@dataclass(frozen=True)
class Picture:
    """One picture (sound, clip) and what is known about it.

    Attributes:
        name: relative name with `/`, or `row-000012` of a table; unique in its data set; for messages.
        path: its file; None when a table or an archive holds the bytes.
        content: its bytes, encoded as PNG, JPEG …, or where to read them; None when they are in the file.
        captions: any number of captions; none means that it is trained as "".
        label: its class, or None.
        repeats: how many times an epoch it is drawn, above 0; 1.5 is three times in two epochs.
        prior: a regularisation picture: what the base shall go on knowing, not what is taught.
        trigger: the word of its source that its captions shall hold; None: the run's.
        keep_tags: so many first tags of its captions stay in front; None: as the run says.
        tags: how its captions are varied; None: they are trained as they are.
        mask: where it counts: another picture, white where it does; `alpha`: its own alpha channel; None: everywhere.
        source: what it was before it was edited: another picture of its aspect; None: it is no edit.
        reference: the picture by which it is asked for; None: itself.
        digest: sha256 of its bytes, once it is judged.
        size: width and height in pixels, upright (of a sound: samples and 1), once it is judged.
    """

    name: str
    path: Path | None
    content: bytes | Content | None
    captions: tuple[str, ...] = ()
    label: str | None = None
    repeats: float = 1.0
    prior: bool = False
    trigger: str | None = None
    keep_tags: int | None = None
    tags: Tags | None = None
    mask: Picture | Literal["alpha"] | None = None
    source: Picture | None = None
    reference: Picture | None = None
    digest: str | None = field(default=None, compare=False)
    size: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """What it is trained with, each as often as another: its captions, or the variants of each; at least ""."""
        captions = self.captions or ("",)
        if self.tags is None:
            return captions
        return tuple(text for caption in captions for text in wordings(caption, self.tags))

    @property
    def plain(self) -> tuple[str, ...]:
        """Its captions as a reader wants them, without the marks that say which tags stay."""
        return self.captions if self.tags is None else tuple(plain(caption, self.tags) for caption in self.captions)

    @property
    def flippable(self) -> bool:
        """Whether it may be mirrored: no caption tells left from right."""
        return not any(map(names_a_side, self.captions))

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            DataError: they are gone, unreadable, or more than `LARGEST_FILE`.
        """
        if isinstance(self.content, bytes):
            return self.content
        if self.content is not None:
            return self.content.read()
        assert self.path is not None, "a picture has a file or its bytes"
        try:
            _require_small(self.path.stat().st_size)
            return self.path.read_bytes()
        except OSError as error:
            raise _unreadable(error, self.name) from error


@dataclass(frozen=True)
class Found:
    """The pictures of a source, sorted by name.

    Attributes:
        pictures: at least one.
        warnings: one line each; nothing that stops a training.
        kind: where the captions come from: `metadata`, `sidecars`, `classes`, `table`, `archives`, `sources` (several) or
            `pictures` (there are none).
    """

    pictures: tuple[Picture, ...]
    warnings: tuple[str, ...]
    kind: str


def _require_small(size: int) -> None:
    if size > LARGEST_FILE:
        raise DataError("the file is too large", allowed=f"up to {LARGEST_FILE >> 20} MiB")


def _unreadable(error: OSError, name: str) -> DataError:
    return DataError(f"cannot be read: {error.strerror or error}", given=printable(name))
