"""Sets some pictures aside for validation."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from adapt.data.picture import Picture
from adapt.errors import DataError, SettingsError


def split(
    pictures: Sequence[Picture], fraction: float, seed: int, digests: Mapping[str, str] | None = None
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(train, held out), each in the given order: a pure function of contents, labels, fraction and seed, whatever the names. Of
    every class about the same share is held out.

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
    for digest in _evenly(groups, seed):
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


def _evenly(groups: Mapping[str, Sequence[Picture]], seed: int) -> list[str]:
    """The digests in an order of chance in which every class comes evenly: each stands at the share of its class that comes
    before it, half of its own included. Without classes, or with one, that is the order of chance itself."""
    chance = {digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest() for digest in groups}
    sizes, before, place = Counter[str | None](), Counter[str | None](), dict[str, float]()
    for pictures in groups.values():
        sizes[pictures[0].label] += len(pictures)
    for digest in sorted(groups, key=chance.__getitem__):
        label, size = groups[digest][0].label, len(groups[digest])
        place[digest] = (before[label] + size / 2) / sizes[label]
        before[label] += size
    return sorted(groups, key=lambda digest: (place[digest], chance[digest]))


def _digest(picture: Picture, digests: Mapping[str, str] | None) -> str:
    return digests[picture.name] if digests is not None else hashlib.sha256(picture.read()).hexdigest()
