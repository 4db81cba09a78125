"""What is worth knowing of a set of pictures as a whole, once each has been looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from adapt.data.buckets import Size, square
from adapt.data.captions import holds
from adapt.data.judge import Finding, Judgement
from adapt.data.likeness import near_pairs
from adapt.data.picture import Found, Picture

BLURRED = 15.0
"""Sharpness (see `likeness`) below which a picture is soft everywhere."""
CUT = 0.25
"""Share of a picture that a centre crop may take without a word."""
UNEVEN = 3.0
"""A class with so many times the pictures of another is learned so many times as often."""

Crop = Callable[[Size], float]
"""(width, height) → share of such a picture that is cut off."""
SQUARE: Crop = square(1).cut_away


def judge_whole(
    found: Found, judgement: Judgement, trigger: str | None = None, cut: Crop = SQUARE
) -> tuple[Finding, ...]:
    """Findings about likeness, sharpness, crops, captions and classes; a function of the pictures alone.

    Args:
        trigger: word that captions are expected to hold, or None.
        cut: (width, height) → share of such a picture that is cut off; by default by the square centre crop.
    """
    taught = tuple(picture for picture in judgement.usable if not picture.prior)
    return (
        *_alike(judgement),
        *_soft(judgement),
        *_cut(judgement, cut),
        *(() if found.kind == "classes" else _repeated(taught)),
        *_without_trigger(taught, trigger),
        *_uneven(taught),
    )


def shares_cut(judgement: Judgement, cut: Crop = SQUARE) -> dict[str, float]:
    """Name of each usable picture → share of it that is cut off."""
    return {name: cut(look.size) for name, look in judgement.looks.items()}


def groups(judgement: Judgement) -> dict[str, str]:
    """Name of each usable picture → name of the first that shows (nearly) the same, or was made of the same source: what `split`
    keeps on one side."""
    first = {name: name for name in judgement.looks}

    def root(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for a, b in (*_pairs(judgement), *_siblings(judgement)):
        first[root(b)] = root(a)
    return {name: root(name) for name in first}


def near_across(train: Judgement, held_out: Judgement) -> dict[str, str]:
    """Name of each picture of the second that looks (nearly) like one of the first → the first such one."""
    sides = (("train", train), ("held out", held_out))
    hashes = {f"{side}/{name}": value for side, judged in sides for name, value in _hashes(judged).items()}
    pairs = (tuple(name.split("/", 1) for name in pair) for pair in near_pairs(hashes))
    return {b: a for (side, a), (other, b) in pairs if side != other}


def _pairs(judgement: Judgement) -> list[tuple[str, str]]:
    return near_pairs(_hashes(judgement))


def _hashes(judgement: Judgement) -> dict[str, int]:
    # A plain surface has no likeness to speak of: its hash is 0, whatever its colour.
    looks = judgement.looks.items()
    return {name: look.likeness for name, look in looks if look.sharpness is None or look.sharpness > 1}


def _siblings(judgement: Judgement) -> Iterator[tuple[str, str]]:
    """Names of edits of one source."""
    seen: dict[Path, str] = {}
    for picture in judgement.usable:
        if picture.source is not None and picture.source.path is not None:
            yield seen.setdefault(picture.source.path, picture.name), picture.name


def _alike(judgement: Judgement) -> Iterator[Finding]:
    exact = {name: look.digest for name, look in judgement.looks.items()}
    told = set[str]()
    for a, b in _pairs(judgement):
        if b not in told and exact[a] != exact[b]:
            told.add(b)
            yield Finding(
                b, "near duplicate", f"looks almost like {a}: keep one, or it counts twice and is copied sooner"
            )


def _soft(judgement: Judgement) -> Iterator[Finding]:
    for name, look in judgement.looks.items():
        if look.sharpness is not None and look.sharpness < BLURRED:
            yield Finding(name, "blurry", "is soft everywhere, and so will be what is learned: a sharper one is better")


def _cut(judgement: Judgement, cut: Crop) -> Iterator[Finding]:
    narrow = {finding.name for finding in judgement.warnings if finding.kind == "narrow"}
    where = "the square centre crop" if cut is SQUARE else "the crop to its bucket"
    advice = "crop it yourself to choose what stays" + (", or buckets=true" if cut is SQUARE else "")
    for name, lost in shares_cut(judgement, cut).items():
        if lost > CUT and name not in narrow:
            yield Finding(name, "cropped", f"loses {lost:.0%} to {where}: {advice}")


def _repeated(pictures: tuple[Picture, ...]) -> Iterator[Finding]:
    """Not of edits: one instruction is for many pictures."""
    holders = defaultdict[str, list[str]](list)
    for picture in (picture for picture in pictures if picture.source is None):
        for caption in picture.captions:
            holders[caption].append(picture.name)
    for caption, names in holders.items():
        if len(names) > 1:
            message = (
                f"has the caption of {len(names) - 1} more ({caption!r}): say what differs, or it cannot be asked for"
            )
            yield Finding(names[0], "repeated caption", message)


def _without_trigger(pictures: tuple[Picture, ...], trigger: str | None) -> Iterator[Finding]:
    for picture in pictures:
        own = picture.trigger or trigger  # that of its source is put there in any case
        if trigger and own == trigger and not all(holds(caption, trigger) for caption in picture.captions or ("",)):
            yield Finding(
                picture.name, "no trigger", f"has a caption without {trigger!r}: trigger={trigger} puts it before them"
            )


def _uneven(pictures: tuple[Picture, ...]) -> Iterator[Finding]:
    draws = defaultdict[str, float](float)
    for picture in pictures:
        if picture.label:
            draws[picture.label] += picture.repeats
    if draws and max(draws.values()) >= UNEVEN * min(draws.values()):
        most, least = (f(draws, key=lambda label: draws[label]) for f in (max, min))
        counts = f"{draws[most]:g} of {most}, {draws[least]:g} of {least}"
        message = f"Classes are uneven: {counts}; the small ones are learned less, except with classes=true"
        yield Finding("", "uneven classes", message)
