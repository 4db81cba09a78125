"""Sets some pictures aside for validation."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from adapt.data.picture import Picture
from adapt.errors import DataError, SettingsError


def split(
    pictures: Sequence[Picture], fraction: float, seed: int, digests: Mapping[str, str] | None = None
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(train, held out), each in the given order: a pure function of contents, fraction and seed, whatever the names.

    Args:
        pictures: at least two different ones.
        fraction: share that is held out, in ]0, 1[; at least one picture.
        seed: any integer.
        digests: name → what makes two pictures the same (`Judgement.digests`); by default the files' bytes. The same
            picture never stands on both sides.

    Raises:
        SettingsError: the fraction is not in ]0, 1[.
        DataError: one side would be empty, or a picture cannot be read.
    """
    if not 0 < fraction < 1:
        raise SettingsError("The fraction held out is out of range", given=fraction, allowed="above 0 and below 1")
    groups = defaultdict[str, list[Picture]](list)
    for picture in pictures:
        groups[_digest(picture, digests)].append(picture)
    wanted, held = max(1, round(fraction * len(pictures))), set[str]()
    for digest in sorted(groups, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest()):
        size = len(groups[digest])
        if size <= wanted and len(held) + size < len(pictures):
            held |= {picture.name for picture in groups[digest]}
            wanted -= size
    if not held:
        raise DataError(
            "Too few different pictures to hold some out",
            given=f"{len(pictures)} in {len(groups)} groups",
            next="add pictures, or give a validation folder",
        )
    train = tuple(picture for picture in pictures if picture.name not in held)
    return train, tuple(picture for picture in pictures if picture.name in held)


def _digest(picture: Picture, digests: Mapping[str, str] | None) -> str:
    return digests[picture.name] if digests is not None else hashlib.sha256(picture.read()).hexdigest()
