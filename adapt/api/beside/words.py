"""Captions from a model that sees: which pictures want one, and what it says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from adapt.api.beside.proposal import Proposal, place_of
from adapt.data import find
from adapt.data.captions import caption_of_label, clean
from adapt.data.decode import decode
from adapt.data.picture import Picture
from adapt.data.verdicts import VerdictCache
from adapt.errors import DataError

PROMPT = "Describe this picture in one sentence, for training a text-to-image model. Say what is in it, not that it is a picture."
LARGEST_SIDE = 1024
"""Pixels. Models that see look at less; more would only take longer to send."""
QUOTES = "\"'“”„«»`*"


@dataclass(frozen=True)
class Captioner:
    """A model that sees.

    Attributes:
        describe: RGB picture → what it says.
        identity: all that its words depend on (model, prompt, length): what is kept is kept for these.
    """

    describe: Callable[[Image], str]
    identity: tuple[str, ...]


def wanting_captions(data: str | Path, replace: bool = False) -> list[Picture]:
    """The pictures of a source that have no caption of their own; a class folder's name is none. All of them with `replace`.

    Raises:
        DataError: the source cannot be read, or its pictures are in no folder.
    """
    pictures = [picture for picture in find(data).pictures if replace or not _has_words(picture)]
    for picture in pictures:
        place_of(picture)
    return pictures


def _has_words(picture: Picture) -> bool:
    of_folder = (caption_of_label(picture.label),) if picture.label else ()
    return bool(picture.captions) and picture.captions != of_folder


def propose_captions(
    data: str | Path, pictures: Sequence[Picture], captioner: Captioner, trigger: str | None = None
) -> Iterator[Proposal]:
    """What the model says of each picture, as the caption file beside it. What was said before of the same bytes is not asked
    again, also after an interruption.

    Args:
        trigger: stands before each caption.

    Raises:
        DataError: a picture cannot be decoded, or the model says nothing.
    """
    with VerdictCache(data, ("captions", *captioner.identity)) as known:
        for picture in pictures:
            said = _said(picture, captioner, known)
            caption = f"{trigger}, {said}" if trigger and trigger.lower() not in said.lower() else said
            path = place_of(picture).with_suffix(".txt")
            yield Proposal(picture.name, path, f"{caption}\n".encode(), caption)


def _said(picture: Picture, captioner: Captioner, known: VerdictCache) -> str:
    content = picture.read()
    digest = hashlib.sha256(content).hexdigest()
    if (verdict := known.get(digest)) is not None:
        return str(verdict["caption"])
    image = decode(content)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    caption = tidy(captioner.describe(image))
    if not caption:
        raise DataError(
            "the model says nothing of a picture", given=picture.name, next="another --ask, or another model"
        )
    known.put(digest, {"caption": caption})
    return caption


def tidy(text: str) -> str:
    """One line without the quotation marks and asterisks that models put around it."""
    return " ".join(clean(" ".join(text.split())).strip(QUOTES).split())
