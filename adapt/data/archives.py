"""webdataset archives: tar files in which the members of one key belong together.

shard-000.tar:   0001.jpg  0001.txt  0002.jpg  0002.json  0002.mask.png

Only the members' places are kept; a picture's bytes are read from the archive when they are asked for. (`datasets` reads
these archives too, but copies every picture into an Arrow file first and wants the same endings for each key.)
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from adapt.data.captions import LARGEST_CAPTION_FILE, captions_of, clean, decode_text
from adapt.data.folders import Reading
from adapt.data.pairs import EDITED, INSTRUCTIONS, NAMES
from adapt.data.picture import EXTENSIONS, Found, Picture, Span
from adapt.data.wording import listed, printable
from adapt.errors import DataError

CAPTION_KEYS = ("caption", "text", "captions", *INSTRUCTIONS, "prompt")
"""Fields of a member `.json` that are captions; the first that is there."""
MASK_ENDINGS = ("mask.png", "masklabel.png")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
SOURCE_ENDINGS = frozenset(f"{name}{ending}" for name in NAMES for ending in EXTENSIONS)
EDITED_ENDINGS = frozenset(f"{name}{ending}" for name in EDITED for ending in EXTENSIONS)
"""What a picture was before, `0001.source.png`, and it itself, where it is called so."""
_ALLOWED = "a plain .tar with members such as 0001.jpg and 0001.txt"


def is_pattern(path: Path) -> bool:
    """Whether a path names a row of archives: `shard-{000..003}.tar`."""
    return path.suffix.lower() == ".tar" and _RANGE.search(str(path)) is not None


def expand(pattern: Path) -> list[Path]:
    """The archives of a row; `{000..003}` keeps the leading zeros. Raises DataError naming all that are missing."""
    ranges = [_numbers(first, last) for first, last in _RANGE.findall(str(pattern))]
    pieces = _RANGE.sub("\0", str(pattern)).split("\0")
    names = ("".join(map("".join, zip(pieces, (*row, ""), strict=True))) for row in product(*ranges))
    paths = [Path(name) for name in names]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise DataError(f"{len(missing)} of {len(paths)} archives are missing", given=listed(missing), next="copy them")
    if not paths:
        raise DataError("The range of archives is empty", given=pattern, next="write the smaller number first")
    return paths


def read_archives(paths: Sequence[Path], reading: Reading) -> Found:
    """The pictures of tar files, named `shard-000/0001.jpg`, or `0001.jpg` when there is one file only.

    Captions come from the member `.txt` (or another of `reading.captions`), one a line, else from the field `caption`,
    `text`, `captions` or `prompt` of the member `.json`.

    Raises:
        DataError: an archive is damaged, cut off or compressed; captions are not UTF-8 text; a key has two pictures; there
            are no pictures. All problems of a kind are in one message.
    """
    samples = [sample for path, name in _named(paths) for sample in _samples(path, name, reading).values()]
    with_picture = [sample for sample in samples if sample.pictures]
    if double := [sample.key for sample in with_picture if len(sample.pictures) > 1]:
        raise DataError("Keys of the archives have several pictures", given=listed(double), next="keep one of each")
    if not with_picture:
        raise DataError(f"The archives hold no {reading.noun}", given=listed(map(str, paths)), allowed=_ALLOWED)
    pictures, wrong = list[Picture](), list[str]()
    for sample in with_picture:
        try:
            pictures.append(_picture(sample, reading))
        except (ValueError, TypeError, DataError) as error:
            wrong.append(f"{sample.key}: {error}")
    if wrong:
        raise DataError("Captions in the archives cannot be read", given=listed(wrong), allowed="UTF-8 text or JSON")
    lonely = [sample.key for sample in samples if not sample.pictures and sample.texts]
    return Found(tuple(pictures), tuple(_warnings(pictures, lonely)), "archives")


def _warnings(pictures: list[Picture], lonely: list[str]) -> list[str]:
    lines = (
        ("Pictures without a caption, trained with an empty one", [p.name for p in pictures if not p.captions]),
        ("Captions in the archives without a picture of the same key", lonely),
    )
    return [f"{text} ({len(names)}): {listed(names)}" for text, names in lines if names]


# ------------------------------------------------------------------------------------------------ members
@dataclass
class _Sample:
    """The members of one key, by their endings."""

    key: str
    pictures: dict[str, Span] = field(default_factory=dict)
    masks: dict[str, Span] = field(default_factory=dict)
    sources: dict[str, Span] = field(default_factory=dict)
    texts: dict[str, Span] = field(default_factory=dict)


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Archives, and what stands before the names of their pictures: nothing for a single one."""
    stems = [path.stem for path in paths]
    for number, (path, stem) in enumerate(zip(paths, stems, strict=True)):
        yield path, "" if len(paths) == 1 else f"{stem}/" if stems.count(stem) == 1 else f"{number}-{stem}/"


def _samples(path: Path, before: str, reading: Reading) -> dict[str, _Sample]:
    """Samples by key, in the archive's order."""
    found: dict[str, _Sample] = {}
    for name, span in _members(path):
        key, ending = _key(name)
        sample = found.setdefault(key, _Sample(printable(before + key)))
        kind = _kind(sample, ending, reading)
        if kind is not None:
            kind[ending] = span
    return found


def _kind(sample: _Sample, ending: str, reading: Reading) -> dict[str, Span] | None:
    if ending in MASK_ENDINGS:
        return sample.masks
    if ending in SOURCE_ENDINGS:
        return sample.sources
    if f".{ending}" in reading.extensions or ending in EDITED_ENDINGS:
        return sample.pictures
    return sample.texts if ending in ("txt", "caption", "json") else None


def _key(name: str) -> tuple[str, str]:
    """webdataset's rule: the key ends at the first dot of the last part of the name."""
    folder, last = posixpath.split(name)
    key, _, ending = last.partition(".")
    return posixpath.join(folder, key), ending.lower()


def _members(path: Path) -> Iterator[tuple[str, Span]]:
    """Name and place of the regular, visible files of an archive."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isreg() and not member.issparse() and not _is_hidden(member.name):
                    yield posixpath.normpath(member.name), Span(path, member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined] # else all headers would stay in memory
            _require_end(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"The archive cannot be read: {reason}",
            given=path,
            allowed=_ALLOWED,
            next="unpack .tar.gz, or copy it again",
        ) from error


def _require_end(path: Path, offset: int) -> None:
    """tarfile takes a damaged header in the middle for the end: there must be a block of zeros, or nothing more."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {offset}")


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


# ------------------------------------------------------------------------------------------------ a sample
def _picture(sample: _Sample, reading: Reading) -> Picture:
    ((ending, content),) = sample.pictures.items()
    mask = next(iter(sample.masks.items()), None) if reading.masks == "files" else None
    return Picture(
        f"{sample.key}.{ending}",
        None,
        content,
        _captions(sample.texts, reading),
        mask="alpha" if reading.masks == "alpha" else mask and Picture(f"{sample.key}.{mask[0]}", None, mask[1]),
        source=_source(sample),
    )


def _source(sample: _Sample) -> Picture | None:
    """What the picture was before. Raises ValueError where there are several."""
    if len(sample.sources) > 1:
        raise ValueError("several sources")
    return next((Picture(f"{sample.key}.{ending}", None, span) for ending, span in sample.sources.items()), None)


def _captions(texts: dict[str, Span], reading: Reading) -> tuple[str, ...]:
    """Raises ValueError or TypeError saying what is wrong."""
    for ending in reading.captions:
        if (span := texts.get(ending.removeprefix("."))) is not None:
            return tuple(caption for line in _text(span).splitlines() if (caption := clean(line)))
    if (span := texts.get("json")) is None:
        return ()
    try:
        fields = json.loads(_text(span))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("no JSON object {…}")
    return captions_of(next((fields[key] for key in CAPTION_KEYS if key in fields), None))


def _text(span: Span) -> str:
    if span.size > LARGEST_CAPTION_FILE:
        raise ValueError(f"larger than {LARGEST_CAPTION_FILE >> 10} KiB")
    return decode_text(span.read())


def _numbers(first: str, last: str) -> list[str]:
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
