"""Opens every picture, sound or clip before anything is trained, and says which cannot be used and what is worth knowing."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.data.look import Look
from adapt.data.masks import mask_of
from adapt.data.media import Reader, reader_of
from adapt.data.media.pictures import SMALLEST_SIDE, TooSmall
from adapt.data.pairs import ASPECT
from adapt.data.picture import Found, Picture
from adapt.data.verdicts import VerdictCache
from adapt.data.wording import listed
from adapt.errors import DataError
from adapt.medium import Medium

if TYPE_CHECKING:
    from adapt.types import TokenCounter

FEW = 5
"""Fewer pictures than this are mostly memorised."""
CHUNK = 256
"""Pictures that are handed to the threads at once."""

Progress = Callable[[int, int], None]
"""`progress(done, total)`."""


@dataclass(frozen=True)
class Finding:
    """One thing about one picture.

    Attributes:
        name: the picture's name; empty when it is about all of them.
        kind: `unreadable`, `small`, `mask` or `source` (faults); `animated`, `transparent`, `enlarged`, `narrow`, `rate`,
            `channels`, `clipped`, `long`, `short`, `duplicate`, `no caption`, `long caption` or `few` (warnings).
        message: what it is and what happens or what to do.
    """

    name: str
    kind: str
    message: str


@dataclass(frozen=True)
class Judgement:
    """What was found out, in the order of the pictures.

    Attributes:
        pictures: all that were judged.
        faults: pictures that cannot be used, one finding each.
        warnings: what does not stop a training.
        looks: name of each usable picture → what it shows of itself.
        noun: what they are called.
    """

    pictures: tuple[Picture, ...]
    faults: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    looks: Mapping[str, Look] = field(default_factory=dict)
    noun: str = "pictures"

    @property
    def digests(self) -> dict[str, str]:
        """Name of each usable picture → digest of its size and pixels; equal for exact duplicates."""
        return {name: look.digest for name, look in self.looks.items()}

    @property
    def usable(self) -> tuple[Picture, ...]:
        """The pictures without a fault."""
        return tuple(picture for picture in self.pictures if picture.name in self.looks)

    def require(self, skip_bad: bool = False) -> tuple[Picture, ...]:
        """The pictures to train on: at least one.

        Args:
            skip_bad: leave out pictures with a fault instead of stopping.

        Raises:
            DataError: there are faults (all are counted, the first five named), or no picture is left.
        """
        given = listed(f"{fault.name} {fault.message}" for fault in self.faults)
        if self.faults and not skip_bad:
            raise DataError(
                f"{len(self.faults)} of {len(self.pictures)} {self.noun} cannot be used",
                given=given,
                next="remove or replace them, or skip_bad=true",
            )
        if not self.usable:
            raise DataError(f"No {self.noun[:-1]} can be used", given=given or None, next=f"add {self.noun}")
        return self.usable

    def lines(self) -> list[str]:
        """One line for each kind of warning, with the first names."""
        return lines(self.warnings, self.noun)


def lines(findings: Iterable[Finding], noun: str = "pictures") -> list[str]:
    """One line for each kind of finding, with the first names."""
    groups = defaultdict[str, list[Finding]](list)
    for finding in findings:
        groups[finding.kind].append(finding)
    return [_line(group, noun) for group in groups.values()]


def judge(
    found: Found,
    resolution: int,
    count_tokens: TokenCounter | None = None,
    *,
    background: str = "white",
    progress: Progress | None = None,
    verdicts: VerdictCache | None = None,
    reader: Reader | None = None,
) -> Judgement:
    """Decodes every picture, sound or clip (a few at a time, in threads) and looks at its captions. Changes nothing on disk.

    Args:
        found: the pictures.
        resolution: side in pixels that pictures are brought to.
        count_tokens: caption → tokens, and how many the text encoder reads; without it lengths are not judged.
        background: colour behind transparent pixels.
        progress: called with (done, total) after each picture, in this thread.
        verdicts: what is known of files already (`verdicts_of`); the others are decoded and put there.
        reader: how the files are read; None: as pictures, on the background, at the resolution.

    Raises:
        SettingsError: the background is no colour. A picture never raises: it becomes a fault.
    """
    pictures, reader = found.pictures, reader or reader_of(Medium(side=resolution), background)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's words on odd files: the findings say what matters
        looks = list(_looks(pictures, reader, progress, verdicts))
    pictures = tuple(map(_known, pictures, looks))
    faults = tuple(look for look in looks if isinstance(look, Finding))
    usable = [(picture, look) for picture, look in zip(pictures, looks, strict=True) if isinstance(look, Look)]
    first_of: dict[str, str] = {}
    remarks: list[Finding] = []
    for picture, look in usable:
        remarks += (Finding(picture.name, *said) for said in (*look.remarks, *reader.about(look)))
        remarks += _about_captions(picture, count_tokens)
        first = first_of.setdefault(look.digest, picture.name)
        if first != picture.name:
            remarks.append(Finding(picture.name, "duplicate", f"{reader.same} as {first}: remove one"))
    if 0 < len(usable) < FEW:
        message = f"Very few {reader.noun} ({len(usable)}): an adapter memorises them; {FEW} or more are better"
        remarks.append(Finding("", "few", message))
    return Judgement(pictures, faults, tuple(remarks), {picture.name: look for picture, look in usable}, reader.noun)


def verdicts_of(source: str | Path, background: str = "white", reader: Reader | None = None) -> VerdictCache:
    """What is known already of the files of a source, read as pictures or as `reader` says. Where nothing can be read,
    nothing is known."""
    reader = reader or reader_of(Medium(), background)
    return VerdictCache(source, [*reader.facts, SMALLEST_SIDE, sorted(Look.__dataclass_fields__)])


def _looks(
    pictures: tuple[Picture, ...], reader: Reader, progress: Progress | None, verdicts: VerdictCache | None
) -> Iterator[Look | Finding]:
    """One look a picture, in their order. Pillow decodes outside Python's lock; each thread holds one picture."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for first in range(0, len(pictures), CHUNK):
            chunk = pictures[first : first + CHUNK]
            for done, look in enumerate(pool.map(lambda p: _look(p, reader, verdicts), chunk), first + 1):
                if progress:
                    progress(done, len(pictures))
                yield look


def _look(picture: Picture, reader: Reader, verdicts: VerdictCache | None) -> Look | Finding:
    look = _seen(picture, reader, verdicts)
    if isinstance(look, Finding):
        return look
    if picture.reference is not None and isinstance(asked := _seen(picture.reference, reader, verdicts), Finding):
        return Finding(picture.name, "source", f"has a reference, {picture.reference.name}, that {asked.message}")
    return _masked(picture, look) if picture.source is None else _paired(picture, look, reader, verdicts)


def _paired(picture: Picture, look: Look, reader: Reader, verdicts: VerdictCache | None) -> Look | Finding:
    """The look, unless the picture's source cannot be used, or is of another shape."""
    assert picture.source is not None
    before = _seen(picture.source, reader, verdicts)
    if isinstance(before, Finding):
        return Finding(picture.name, "source", f"has a source, {picture.source.name}, that {before.message}")
    (a, b), (c, d) = before.size, look.size
    if abs(a * d / (b * c) - 1) > ASPECT:
        shapes = f"{picture.source.name}: {a} x {b} for {c} x {d} pixels"
        return Finding(picture.name, "source", f"has a source of another shape: {shapes}")
    return _masked(picture, look)


def _seen(picture: Picture, reader: Reader, verdicts: VerdictCache | None) -> Look | Finding:
    try:
        data = picture.read()
    except DataError as error:
        return Finding(picture.name, "unreadable", str(error))
    file = hashlib.sha256(data).hexdigest()
    verdict = verdicts.get(file) if verdicts else None
    if verdict is None:
        verdict = _verdict(data, file, reader)
        if verdicts:
            verdicts.put(file, verdict)
    if "fault" in verdict:
        return Finding(picture.name, *verdict["fault"])
    remarks = tuple((kind, message) for kind, message in verdict["remarks"])
    return Look(**{**verdict, "size": tuple(verdict["size"]), "remarks": remarks})


def _masked(picture: Picture, look: Look) -> Look | Finding:
    """The look, unless the picture's mask is none."""
    try:
        mask_of(picture, look.size)
    except DataError as error:
        return Finding(picture.name, "mask", str(error))
    return look


def _verdict(data: bytes, file: str, reader: Reader) -> Mapping[str, Any]:
    """The fields of a `Look`, or the kind and message of a `fault`: a function of the bytes alone, as JSON takes it."""
    try:
        return asdict(reader.look(data, file))
    except TooSmall as error:
        return {"fault": ("small", str(error))}
    except DataError as error:
        return {"fault": ("unreadable", str(error))}


def _known(picture: Picture, look: Look | Finding) -> Picture:
    return replace(picture, digest=look.file, size=look.size) if isinstance(look, Look) else picture


def _about_captions(picture: Picture, count_tokens: TokenCounter | None) -> Iterator[Finding]:
    if not picture.captions:
        yield Finding(picture.name, "no caption", "has no caption: it is trained with an empty one")
    if count_tokens:
        yield from long_captions([picture], count_tokens)


def long_captions(pictures: Iterable[Picture], count_tokens: TokenCounter) -> Iterator[Finding]:
    """Captions that the text encoder cuts off."""
    for picture in pictures:
        for caption in picture.captions:
            tokens, limit = count_tokens(caption)
            if tokens > limit:
                message = f"has a caption of {tokens} tokens: the text encoder reads the first {limit}"
                yield Finding(picture.name, "long caption", message)


def _line(group: list[Finding], noun: str) -> str:
    first = group[0]
    if not first.name:
        return first.message
    if len(group) == 1:
        return f"{first.name} {first.message}"
    names = list(dict.fromkeys(finding.name for finding in group))
    return f"{len(names)} {noun}, {first.kind}: {listed(names)} (the first {first.message})"
