"""A folder of pictures with caption files, metadata tables, class folders, masks.

my-images/                       captions come from, first match wins:
├── cat.png  cat.txt             1. the file `cat.txt` or `cat.caption` beside the picture, one caption a line
├── metadata.jsonl               2. `metadata.jsonl|csv|parquet` with `file_name` and `text`
├── tabby-cat/ 001.png           3. the name of the sub-folder: "tabby cat"
└── cat-masklabel.png            where cat.png counts: white
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from unicodedata import normalize

from adapt.data.captions import caption_of_label, read_captions
from adapt.data.kohya_layout import count_of, remark, require_counts, without_count
from adapt.data.masks import is_label, mask_names
from adapt.data.metadata import FILES as METADATA
from adapt.data.metadata import Row, read_metadata
from adapt.data.pairs import sources_of
from adapt.data.picture import EXTENSIONS, Found, Picture
from adapt.data.walk import Walk, folder_identity, stem, suffix
from adapt.data.wording import listed, printable
from adapt.errors import DataError

CAPTION_EXTENSIONS = (".txt", ".caption")
OTHER_PICTURES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".jfif", ".dng")
DOCUMENTS = ("license", "licence", "readme", "notice", "copying", "credits", "attribution", "changelog", "source")
PLAIN_FOLDERS = ("images", "image", "img", "imgs", "train", "training", "data", "dataset", "pictures", "photos")
"""Folder names that say nothing about what their pictures show."""


@dataclass(frozen=True)
class Reading:
    """How a source is read.

    Attributes:
        repeats: `folders` draws the pictures in `10_cat` ten times as often; `ignore` does not.
        masks: `files` takes `cat-masklabel.png` or `mask/cat.png` as the mask of `cat.png`, `alpha` each picture's own alpha
            channel; with `none` pictures count everywhere.
        captions: endings of caption files.
        deep: whether sub-folders are read as well.
        noun: what is looked for.
        extensions: endings of such files.
    """

    repeats: Literal["ignore", "folders"] = "ignore"
    masks: Literal["none", "files", "alpha"] = "none"
    captions: tuple[str, ...] = CAPTION_EXTENSIONS
    deep: bool = True
    noun: str = "pictures"
    extensions: tuple[str, ...] = EXTENSIONS


AS_IT_LIES = Reading()
"""Every picture once, whole."""


def pictures_among(walked: Walk, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Names of the files that are pictures (sounds, clips) by their ending, masks included."""
    return [name for name in walked.files if suffix(name) in extensions]


def read_folder(walked: Walk, reading: Reading) -> Found:
    """The pictures of a folder that has been walked.

    Raises:
        DataError: nothing but masks, two pictures of the same stem, caption files that are not UTF-8, metadata that names
            missing files or lacks columns, folder counts that are no repeats. All problems of a kind are in one message.
    """
    every, twins = _each_once(walked, pictures_among(walked, reading.extensions))
    masks = mask_names(every)
    names = [name for name in every if name not in masks and not is_label(name)]
    if not names:
        raise DataError(
            "There are masks, but no pictures of the same names", given=listed(every), next="add the pictures"
        )
    by_stem = _caption_files(walked, reading.captions)
    rows, before, references = _metadata_rows(walked, names)
    names = _edited(walked, names, rows, [*before.values(), *references.values()])
    _refuse_same_stem(names, by_stem, rows)
    if reading.repeats == "folders":
        require_counts(dict.fromkeys(map(_folder_of, names)))
    sources = _Sources(_sidecars(walked, names, by_stem), rows, _masks(walked, masks), before, references)
    pictures = tuple(_picture(name, walked.files[name], sources, reading) for name in names)
    warnings = _Warnings(walked, pictures, twins, by_stem, sources, reading).lines()
    return Found(pictures, tuple(warnings), _kind(pictures, sources))


# ------------------------------------------------------------------------------------------------ one picture
@dataclass(frozen=True)
class _Sources:
    """Captions, masks, what they were before and what they are asked for by, by the pictures' names, from each place."""

    sidecars: dict[str, tuple[str, ...]]
    rows: dict[str, list[Row]]
    masks: dict[str, Picture]
    before: dict[str, Picture]
    references: dict[str, Picture]


def _picture(name: str, path: Path, sources: _Sources, reading: Reading) -> Picture:
    rows = sources.rows.get(name, [])
    label = next((row.label for row in rows if row.label), None) or _class_folder(name)
    captions = sources.sidecars.get(name)
    if captions is None:
        captions = tuple(dict.fromkeys(caption for row in rows for caption in row.captions))
        captions = captions or ((caption_of_label(label),) if label else ())
    count = count_of(_folder_of(name)) if reading.repeats == "folders" else None
    mask = sources.masks.get(name) if reading.masks == "files" else None
    return Picture(
        printable(name), path, None, captions, label,
        repeats=float(count or 1), mask="alpha" if reading.masks == "alpha" else mask,
        source=sources.before.get(name), reference=sources.references.get(name),
    )  # fmt: skip


def _class_folder(name: str) -> str | None:
    """The sub-folder's name without kohya's count of repeats (`10_tabby-cat` → `tabby-cat`)."""
    folder = _folder_of(name)
    return None if not folder or folder.lower() in PLAIN_FOLDERS else without_count(printable(folder))


def _kind(pictures: Iterable[Picture], sources: _Sources) -> str:
    if sources.rows:
        return "metadata"
    if sources.sidecars:
        return "sidecars"
    return "classes" if any(picture.label for picture in pictures) else "pictures"


# ------------------------------------------------------------------------------------------------ what lies there
def _each_once(walked: Walk, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of different files, and names that lead to a file already there; a real name wins over a link."""
    seen, kept, twins = set[tuple[int, int]](), list[str](), list[str]()
    for name in sorted(names, key=lambda name: (name in walked.links, name)):
        identity = folder_identity(walked.files[name])
        (twins if identity in seen else kept).append(name)
        seen |= {identity} if identity else set()
    return sorted(kept), sorted(twins)


def _caption_files(walked: Walk, endings: tuple[str, ...]) -> dict[str, list[str]]:
    """Stem → names of caption files."""
    files = defaultdict[str, list[str]](list)
    for name in walked.files:
        if suffix(name) in endings:
            files[stem(name)].append(name)
    return files


def _refuse_same_stem(names: list[str], by_stem: dict[str, list[str]], rows: dict[str, list[Row]]) -> None:
    """Two pictures of one stem (or one but for the case of letters) are ambiguous, unless metadata names each."""
    groups = defaultdict[str, list[str]](list)
    for name in names:
        groups[stem(name).casefold()].append(name)
    same = [
        " and ".join(group)
        for group in groups.values()
        if len(group) > 1 and not all(name in rows and stem(name) not in by_stem for name in group)
    ]
    if same:
        raise DataError(
            "Pictures differ only in the ending of their names", given=listed(same), next="rename or remove one"
        )


def _sidecars(walked: Walk, names: list[str], by_stem: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    captions, double, wrong = dict[str, tuple[str, ...]](), list[str](), list[str]()
    for name in names:
        files = by_stem.get(stem(name), [])
        if len(files) > 1:
            double.append(" and ".join(files))
        elif files:
            try:
                captions[name] = read_captions(walked.files[files[0]])
            except (OSError, ValueError) as error:
                wrong.append(f"{files[0]}: {getattr(error, 'strerror', None) or error}")
    if double:
        raise DataError("Pictures have two caption files", given=listed(double), next="keep one of each")
    if wrong:
        raise DataError(
            "Caption files cannot be read", given=listed(wrong), allowed="UTF-8 text", next="save them as UTF-8"
        )
    return captions


def _edited(walked: Walk, names: list[str], rows: dict[str, list[Row]], beside: Iterable[Picture]) -> list[str]:
    """The pictures without those that are only what others were before, or are asked for by."""
    used = {picture.path.resolve() for picture in beside if picture.path}
    return [name for name in names if name in rows or walked.files[name].resolve() not in used] if used else names


def _metadata_rows(
    walked: Walk, names: list[str]
) -> tuple[dict[str, list[Row]], dict[str, Picture], dict[str, Picture]]:
    """Rows by picture name, and the sources and references that they name."""
    known = {normalize("NFC", name): name for name in names}
    found, missing = defaultdict[str, list[Row]](list), list[str]()
    before, references = (defaultdict[str, list[tuple[Path, str]]](list) for _ in range(2))
    for place in _metadata_files(walked):
        for row in read_metadata(walked.files[place]):
            # Tables that were written on Windows separate by backslashes; macOS decomposes letters in file names.
            written = normalize("NFC", row.file_name.replace("\\", "/"))
            name = posixpath.normpath(posixpath.join(posixpath.dirname(place), written))
            if name in known:
                found[known[name]].append(row)
                for beside, named in ((before, row.source), (references, row.reference)):
                    if named:
                        beside[known[name]].append((walked.files[place].parent, named))
            else:
                missing.append(row.file_name)
    if missing:
        raise DataError(
            "Metadata names files that are no pictures here",
            given=listed(sorted(set(missing))),
            allowed="names relative to the metadata file",
            next="add these pictures or remove their rows",
        )
    return found, sources_of(before), sources_of(references, "references")


def _metadata_files(walked: Walk) -> list[str]:
    places = [name for name in walked.files if PurePosixPath(name).name in METADATA]
    folders = [posixpath.dirname(place) for place in places]
    if double := [place for place in places if folders.count(posixpath.dirname(place)) > 1]:
        raise DataError("A folder has several metadata files", given=listed(double), next="keep one of them")
    return places


def _masks(walked: Walk, names: dict[str, str]) -> dict[str, Picture]:
    """Masks by the names of their pictures."""
    return {picture: Picture(printable(mask), walked.files[mask], None) for mask, picture in names.items()}


# ------------------------------------------------------------------------------------------------ what is worth a word
@dataclass(frozen=True)
class _Warnings:
    walked: Walk
    pictures: tuple[Picture, ...]
    twins: list[str]
    by_stem: dict[str, list[str]]
    sources: _Sources
    reading: Reading

    def lines(self) -> list[str]:
        lines = (
            ("Caption files without a picture of the same name", self._lonely()),
            ("Pictures without a caption, trained with an empty one", self._bare()),
            ("Metadata rows unused, because a caption file beside the picture wins", self._unused()),
            ("Pictures that are the same file as another, used once", self.twins),
            ("Links that lead nowhere", self.walked.broken),
            ("Pictures of a type that is not read, to be converted to PNG", self._of_type(OTHER_PICTURES)),
            ("Tables beside pictures, not read", self._tables()),
            ("Archives beside pictures, not read", self._of_type((".tar",))),
            ("Labels without a picture of the same name, not used", self._labels()),
            ("Pictures with masks, which masks=files would use", self._idle_masks()),
            ("Pictures without a mask beside others that have one, learned whole", self._whole()),
        )
        said = [f"{text} ({len(names)}): {listed(names)}" for text, names in lines if names]
        return said + remark((_folder_of(p.name) for p in self.pictures), self.reading.repeats == "folders")

    def _lonely(self) -> list[str]:
        stems = {stem(name) for name in pictures_among(self.walked, self.reading.extensions)}
        files = ((stem_, name) for stem_, names in self.by_stem.items() for name in names)
        return [name for stem_, name in files if stem_ not in stems and not _is_document(name)]

    def _bare(self) -> list[str]:
        return [picture.name for picture in self.pictures if not picture.captions]

    def _unused(self) -> list[str]:
        return [name for name in self.sources.rows if name in self.sources.sidecars]

    def _of_type(self, suffixes: tuple[str, ...]) -> list[str]:
        return [name for name in self.walked.files if suffix(name) in suffixes]

    def _tables(self) -> list[str]:
        return [n for n in self._of_type((".parquet", ".arrow")) if PurePosixPath(n).name not in METADATA]

    def _labels(self) -> list[str]:
        used = {mask.name for mask in self.sources.masks.values()}
        return [name for name in pictures_among(self.walked) if is_label(name) and printable(name) not in used]

    def _idle_masks(self) -> list[str]:
        return [printable(name) for name in self.sources.masks] if self.reading.masks == "none" else []

    def _whole(self) -> list[str]:
        wanted = self.reading.masks == "files" and self.sources.masks
        return [picture.name for picture in self.pictures if wanted and picture.mask is None]


def _is_document(name: str) -> bool:
    return PurePosixPath(name).stem.lower().startswith(DOCUMENTS)


def _folder_of(name: str) -> str:
    return PurePosixPath(name).parent.name
