"""How files of each kind of media are read: one small file a kind, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from adapt.data.buckets import Size
from adapt.data.look import Look
from adapt.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.data.view import View


class Reader(Protocol):
    """What the data package asks of a kind of media.

    Attributes:
        noun: what its items are called: `pictures`.
        same: what is said of one that equals another: `shows the same pixels`.
        timed: whether a row depends on the `moment` of its variant.
        extensions: endings of its files.
        facts: all that looks and rows depend on besides the file, as JSON takes it.
    """

    noun: str
    same: str
    timed: bool
    extensions: tuple[str, ...]
    facts: list[object]

    def look(self, data: bytes, file: str) -> Look:
        """What a file shows of itself; `file` is its sha256. A function of bytes and `facts`.

        Raises:
            DataError: it cannot be used; the message goes on from the file's name.
        """
        ...

    def about(self, look: Look) -> Iterator[tuple[str, str]]:
        """Kind and message of what is worth a word, besides the remarks of the look."""
        ...

    def size_of(self, data: bytes) -> Size:
        """The `size` of its look, without decoding where that can be. Raises DataError as `look`."""
        ...

    def row(self, data: bytes, view: View) -> Tensor:
        """The file as it is seen: float32 (C, *dims) in [-1, 1]. Raises DataError as `look`."""
        ...


def reader_of(medium: Medium, background: str = "white") -> Reader:
    """The reader for what a base takes.

    Raises:
        SettingsError: the background is no colour.
        DataError: a package that reads such files is not installed.
    """
    if medium.kind == "sound":
        from adapt.data.media.sounds import Sounds

        return Sounds(medium)
    if medium.kind == "video":
        from adapt.data.media.clips import Clips

        return Clips(medium, background)
    from adapt.data.media.pictures import Pictures

    return Pictures(medium, background)
