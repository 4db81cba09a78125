"""A file that could be written beside a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapt import files
from adapt.data.picture import Picture
from adapt.errors import DataError


@dataclass(frozen=True)
class Proposal:
    """Attributes:
    picture: name of the picture that it is about.
    path: the file.
    content: its bytes.
    told: in words: the caption, or what the mask covers.
    """

    picture: str
    path: Path
    content: bytes
    told: str

    @property
    def replaces(self) -> bool:
        """Whether something stands there."""
        return self.path.exists()


def place_of(picture: Picture) -> Path:
    """The picture's own file.

    Raises:
        DataError: it has none: a row of a table or a member of an archive has nothing beside it.
    """
    if picture.path is None:
        raise DataError(
            "nothing can be put beside this picture: it is inside a table or an archive",
            given=picture.name,
            next="unpack it into a folder",
        )
    return picture.path


def write(proposals: Iterable[Proposal], *, replace: bool = False) -> list[Path]:
    """Writes them, each file whole or not at all. Gives those that were written.

    Args:
        replace: also where something stands by now.

    Raises:
        DataError: a file cannot be written; those before it are.
    """
    written = []
    for proposal in proposals:
        if proposal.replaces and not replace:
            continue
        try:
            proposal.path.parent.mkdir(parents=True, exist_ok=True)
            files.write(proposal.path, proposal.content)
        except OSError as error:
            raise DataError(f"the file cannot be written: {error.strerror}", given=proposal.path) from error
        written.append(proposal.path)
    return written
