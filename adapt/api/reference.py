"""Reference pictures: what a style is compared with, and what it is asked to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from adapt.api.judging import spread
from adapt.data import Picture, decode, find
from adapt.data.captions import caption_of_label, holds
from adapt.errors import DataError
from adapt.evaluation.quality import FEWEST

MOST = 256
"""Pictures that are looked at: more tell little more."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Attributes:
    pictures: RGB.
    captions: the first of each picture that has one.
    subjects: of each picture that has a class: what its caption says beside that, and the class.
    """

    pictures: tuple[Image, ...]
    captions: tuple[str, ...]
    subjects: tuple[tuple[str, str], ...] = ()

    def prompts(self, count: int, triggers: Sequence[str]) -> tuple[str, ...]:
        """So many different captions, evenly spread, each with a word that calls the adapter."""
        different = list(dict.fromkeys(self.captions))
        chosen = [different[i] for i in spread(range(len(different)), count)]
        return tuple(_called(caption, triggers) for caption in chosen)


NONE = Reference((), ())


def read_reference(source: str | Path) -> Reference:
    """The pictures of a folder, table or archive, at most 256 of them, evenly spread.

    Raises:
        DataError: nothing is there, fewer than four, or one that cannot be read, which is named.
    """
    found = [picture for picture in find(source).pictures if not picture.prior]
    if len(found) < FEWEST:
        raise DataError("too few reference pictures", given=len(found), allowed=f"{FEWEST} or more",
                        next="--reference FOLDER of pictures of the style, held-out ones if there are some")  # fmt: skip
    chosen = [found[i] for i in spread(range(len(found)), MOST)]
    pictures = []
    for picture in chosen:
        try:
            pictures.append(decode(picture.read()))
        except DataError as error:
            raise DataError(f"a reference picture {error.message}", given=picture.name, next=error.next) from error
    captions = tuple(p.captions[0] for p in chosen if p.captions and p.captions[0].strip())
    return Reference(tuple(pictures), captions, tuple((_beside(p), p.label) for p in chosen if p.label))


def _beside(picture: Picture) -> str:
    """The first caption that says more than the class."""
    said = caption_of_label(picture.label or "")
    return next((caption for caption in picture.captions if caption != said), "")


def _called(caption: str, triggers: Sequence[str]) -> str:
    if not triggers or any(holds(caption, word) for word in triggers):
        return caption
    return f"{triggers[0]}, {caption}"
