"""Edit pairs: what a picture was before, beside what it became. Captions say what was done to it.

metadata.jsonl {"file_name": "after/1.png", "source": "before/1.png", "text": "make it snow"}
before/1.png  after/1.png                a folder of the same names (`source_folder`)
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from adapt.data.picture import EXTENSIONS, Found, Picture
from adapt.data.walk import stem, suffix, walk
from adapt.data.wording import listed, printable
from adapt.errors import DataError

NAMES = ("source", "input_image", "original_image", "control_image", "conditioning_image", "cond_image", "control")
"""What diffusers' scripts and published data sets call the picture before, or the one that is followed."""
COLUMNS = (*NAMES, *(f"{name}_file_name" for name in NAMES), "control_path")
"""Of metadata; with `_file_name` as `datasets` has them."""
EDITED = ("edited_image", "edited_image_file_name")
"""Columns of the picture after, where there is no usual one."""
INSTRUCTIONS = ("edit_prompt", "instruction", "edit_instruction")
"""Columns of captions that say what is done."""
ASPECT = 0.02
"""Relative difference of aspects that rounding sides may leave."""


def with_sources_of(found: Found, folder: Path) -> Found:
    """The pictures with the sources of a folder, each the file of the same stem; what lies in that folder is not trained.

    Raises:
        DataError: no such folder, or pictures without a source there; all are named.
    """
    if not folder.is_dir():
        raise DataError("There is no such folder of sources", given=folder, next="check source_folder")
    files = {stem(name): path for name, path in walk(folder).files.items() if suffix(name) in EXTENSIONS}
    inside = folder.resolve()
    pictures = [p for p in found.pictures if p.path is None or inside not in p.path.resolve().parents]
    places = [_place(picture.name, files) for picture in pictures]
    if missing := [picture.name for picture, place in zip(pictures, places, strict=True) if place is None]:
        raise DataError(
            "Pictures have no source of the same name", given=listed(missing), allowed=f"their names in {folder}",
            next="add the sources, or remove these pictures",
        )  # fmt: skip
    if not pictures:
        raise DataError(
            "All pictures lie in the folder of sources", given=folder, next="give the folder of the edited ones"
        )
    named = zip(pictures, (place for place in places if place is not None), strict=True)
    return replace(found, pictures=tuple(replace(p, source=source_at(place, place.name)) for p, place in named))


def _place(name: str, files: Mapping[str, Path]) -> Path | None:
    """A picture's source: of the same name below the folder, else of the same name without its folders."""
    return files.get(stem(name)) or files.get(PurePosixPath(stem(name)).name)


def source_at(path: Path, name: str) -> Picture:
    """A source in a file of its own."""
    return Picture(printable(name), path, None)


def sources_of(rows: Mapping[str, Sequence[tuple[Path, str]]], noun: str = "sources") -> dict[str, Picture]:
    """Sources (references) by the names of their pictures.

    Args:
        rows: name of a picture → folder of each metadata file that names one for it, and that name.
        noun: what they are.

    Raises:
        DataError: sources that are not there, or two for one picture; all are named.
    """
    found, missing, double = dict[str, Picture](), list[str](), list[str]()
    for picture, told in rows.items():
        places = list(dict.fromkeys((folder / written.replace("\\", "/"), written) for folder, written in told))
        if len(places) > 1:
            double.append(picture)
        elif not places[0][0].is_file():
            missing.append(places[0][1])
        else:
            found[picture] = source_at(places[0][0], posixpath.normpath(places[0][1].replace("\\", "/")))
    if missing:
        raise DataError(
            f"Metadata names {noun} that are not there", given=listed(sorted(set(missing))),
            allowed="files relative to the metadata file", next="add these pictures or correct their rows",
        )  # fmt: skip
    if double:
        raise DataError(f"Pictures have two {noun}", given=listed(double), next="give each row its own picture")
    return found


def require_sources(pictures: Iterable[Picture], found: int, needed: str) -> None:
    """Raises `DataError` for pictures without a source; all are named.

    Args:
        needed: why.
    """
    if missing := [picture.name for picture in pictures if picture.source is None]:
        raise DataError(
            f"{len(missing)} of {found} pictures have no source, and {needed}", given=listed(missing),
            allowed="a column source of the metadata, or source_folder with files of the same names",
            next="say what each picture was before, or follows",
        )  # fmt: skip


def without_sources(found: Found) -> Found:
    """For bases that take none."""
    paired = [picture for picture in found.pictures if picture.source is not None]
    if not paired:
        return found
    told = f"Sources of pictures ({len(paired)}), which bases that edit and control=files use"
    return replace(
        found,
        pictures=tuple(replace(picture, source=None) for picture in found.pictures),
        warnings=(*found.warnings, told),
    )
