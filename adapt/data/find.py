"""Finds pictures and their captions: folders with caption files, metadata tables, class folders, data sets.

my-images/                       captions come from, first match wins:
├── cat.png  cat.txt             1. the file `cat.txt` or `cat.caption` beside the picture, one caption a line
├── metadata.jsonl               2. `metadata.jsonl|csv|parquet` with `file_name` and `text`
└── tabby-cat/ 001.png           3. the name of the sub-folder: "tabby cat"
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from adapt.data import tables
from adapt.data.captions import caption_of_label, read_captions
from adapt.data.metadata import FILES as METADATA
from adapt.data.metadata import Row, read_metadata
from adapt.data.picture import EXTENSIONS, Found, Picture
from adapt.data.walk import Walk, folder_identity, walk
from adapt.data.wording import listed, printable
from adapt.errors import DataError

CAPTION_EXTENSIONS = (".txt", ".caption")
OTHER_PICTURES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".jfif", ".dng")
DOCUMENTS = ("license", "licence", "readme", "notice", "copying", "credits", "attribution", "changelog", "source")
PLAIN_FOLDERS = ("images", "image", "img", "imgs", "train", "training", "data", "dataset", "pictures", "photos")
"""Folder names that say nothing about what their pictures show."""


def find(source: str | Path) -> Found:
    """The pictures of a folder or of a local copy of a data set, in an order that depends on their names only.

    Args:
        source: a folder of PNG, JPEG, WebP or BMP pictures (recursive; hidden names, pipes and loops are skipped), a
            folder of parquet or arrow files, or one that `datasets`' `save_to_disk` wrote.

    Raises:
        DataError: it is no folder, is empty, holds no pictures, two files of the same stem, caption files that are not
            UTF-8, or metadata that names missing files or lacks columns. All problems of a kind are in one message.
    """
    root = _folder(source)
    if tables.is_saved(root):
        return tables.read_saved(root)
    walked = walk(root)
    if walked.unreadable:
        raise DataError("Folders cannot be read", given=listed(walked.unreadable), next="change their permissions")
    names = [name for name in walked.files if _suffix(name) in EXTENSIONS]
    if not names and any(_suffix(name) in (".parquet", ".arrow") for name in walked.files):
        return tables.read_tables(root)
    if not names:
        raise _nothing(root, walked)
    return _from_folder(walked, names)


def _folder(source: str | Path) -> Path:
    hint = "give a folder of pictures"
    try:
        root = Path(source).expanduser()
        exists, is_folder = root.exists(), root.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"The folder cannot be read: {error}", given=printable(str(source)), next=hint) from error
    if not exists:
        raise DataError("The folder does not exist", given=printable(str(source)), next=hint)
    if not is_folder:
        raise DataError("This is a file, not a folder", given=printable(str(source)), next=f"{hint}: {root.parent}")
    return root


def _nothing(root: Path, walked: Walk) -> DataError:
    allowed = ", ".join(EXTENSIONS)
    if not walked.files:
        return DataError("The folder is empty", given=root, allowed=allowed, next="put pictures there")
    kinds = sorted({_suffix(name) or "(none)" for name in walked.files})
    given = f"{root} with {len(walked.files)} files of type {listed(kinds)}"
    return DataError(
        "The folder holds no pictures", given=given, allowed=allowed, next="convert them or give their folder"
    )


# ------------------------------------------------------------------------------------------------ folders of pictures
@dataclass(frozen=True)
class _Sources:
    """Captions by the pictures' names, from each place."""

    sidecars: dict[str, tuple[str, ...]]
    rows: dict[str, list[Row]]


def _from_folder(walked: Walk, names: list[str]) -> Found:
    kept, twins = _each_once(walked, names)
    by_stem = _caption_files(walked)
    rows = _metadata_rows(walked, names)
    _refuse_same_stem(kept, by_stem, rows)
    sources = _Sources(_sidecars(walked, kept, by_stem), rows)
    pictures = tuple(_picture(name, walked.files[name], sources) for name in kept)
    warnings = _warnings(walked, pictures, twins, by_stem, sources)
    return Found(pictures, tuple(warnings), _kind(pictures, sources))


def _each_once(walked: Walk, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of different files, and names that lead to a file already there; a real name wins over a link."""
    seen, kept, twins = set[tuple[int, int]](), list[str](), list[str]()
    for name in sorted(names, key=lambda name: (name in walked.links, name)):
        identity = folder_identity(walked.files[name])
        (twins if identity in seen else kept).append(name)
        seen |= {identity} if identity else set()
    return sorted(kept), sorted(twins)


def _caption_files(walked: Walk) -> dict[str, list[str]]:
    """Stem → names of caption files."""
    files = defaultdict[str, list[str]](list)
    for name in walked.files:
        if _suffix(name) in CAPTION_EXTENSIONS:
            files[_stem(name)].append(name)
    return files


def _refuse_same_stem(names: list[str], by_stem: dict[str, list[str]], rows: dict[str, list[Row]]) -> None:
    """Two pictures of one stem (or one but for the case of letters) are ambiguous, unless metadata names each."""
    groups = defaultdict[str, list[str]](list)
    for name in names:
        groups[_stem(name).casefold()].append(name)
    same = [
        " and ".join(group)
        for group in groups.values()
        if len(group) > 1 and not all(name in rows and _stem(name) not in by_stem for name in group)
    ]
    if same:
        raise DataError(
            "Pictures differ only in the ending of their names", given=listed(same), next="rename or remove one"
        )


def _sidecars(walked: Walk, names: list[str], by_stem: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    captions, double, wrong = dict[str, tuple[str, ...]](), list[str](), list[str]()
    for name in names:
        files = by_stem.get(_stem(name), [])
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


def _metadata_rows(walked: Walk, names: list[str]) -> dict[str, list[Row]]:
    """Rows by picture name."""
    known = {normalize("NFC", name): name for name in names}
    found, missing = defaultdict[str, list[Row]](list), list[str]()
    for place in _metadata_files(walked):
        for row in read_metadata(walked.files[place]):
            # Tables that were written on Windows separate by backslashes; macOS decomposes letters in file names.
            written = normalize("NFC", row.file_name.replace("\\", "/"))
            name = posixpath.normpath(posixpath.join(posixpath.dirname(place), written))
            if name in known:
                found[known[name]].append(row)
            else:
                missing.append(row.file_name)
    if missing:
        raise DataError(
            "Metadata names files that are no pictures here",
            given=listed(sorted(set(missing))),
            allowed="names relative to the metadata file",
            next="add these pictures or remove their rows",
        )
    return found


def _metadata_files(walked: Walk) -> list[str]:
    places = [name for name in walked.files if PurePosixPath(name).name in METADATA]
    folders = [posixpath.dirname(place) for place in places]
    if double := [place for place in places if folders.count(posixpath.dirname(place)) > 1]:
        raise DataError("A folder has several metadata files", given=listed(double), next="keep one of them")
    return places


def _picture(name: str, path: Path, sources: _Sources) -> Picture:
    rows = sources.rows.get(name, [])
    label = next((row.label for row in rows if row.label), None) or _class_folder(name)
    captions = sources.sidecars.get(name)
    if captions is None:
        captions = tuple(dict.fromkeys(caption for row in rows for caption in row.captions))
        captions = captions or ((caption_of_label(label),) if label else ())
    return Picture(printable(name), path, None, captions, label)


def _class_folder(name: str) -> str | None:
    """The sub-folder's name without kohya's count of repeats (`10_tabby-cat` → `tabby-cat`)."""
    folder = PurePosixPath(name).parent.name
    return None if not folder or folder.lower() in PLAIN_FOLDERS else re.sub(r"^\d+_(?=.)", "", printable(folder))


def _kind(pictures: Iterable[Picture], sources: _Sources) -> str:
    if sources.rows:
        return "metadata"
    if sources.sidecars:
        return "sidecars"
    return "classes" if any(picture.label for picture in pictures) else "pictures"


# ------------------------------------------------------------------------------------------------ what is worth a word
def _warnings(
    walked: Walk, pictures: tuple[Picture, ...], twins: list[str], by_stem: dict[str, list[str]], sources: _Sources
) -> list[str]:
    stems = {_stem(name) for name in walked.files if _suffix(name) in EXTENSIONS}
    lonely = [name for stem, files in by_stem.items() if stem not in stems for name in files if not _is_document(name)]
    bare = [picture.name for picture in pictures if not picture.captions]
    unused = [name for name in sources.rows if name in sources.sidecars]
    repeats = {PurePosixPath(picture.name).parent.name for picture in pictures if _counts(picture.name)}
    lines = (
        ("Caption files without a picture of the same name", lonely),
        ("Pictures without a caption, trained with an empty one", bare),
        ("Metadata rows unused, because a caption file beside the picture wins", unused),
        ("Pictures that are the same file as another, used once", twins),
        ("Links that lead nowhere", walked.broken),
        ("Pictures of a type that is not read, to be converted to PNG", _of_type(walked, OTHER_PICTURES)),
        ("Tables beside pictures, not read", _tables(walked)),
        ("Sub-folders that begin with a count, which is left out of the label and repeats nothing", sorted(repeats)),
    )
    return [f"{text} ({len(names)}): {listed(names)}" for text, names in lines if names]


def _of_type(walked: Walk, suffixes: tuple[str, ...]) -> list[str]:
    return [name for name in walked.files if _suffix(name) in suffixes]


def _tables(walked: Walk) -> list[str]:
    tables_here = _of_type(walked, (".parquet", ".arrow"))
    return [name for name in tables_here if PurePosixPath(name).name not in METADATA]


def _counts(name: str) -> bool:
    return re.match(r"^\d+_.", PurePosixPath(name).parent.name) is not None


def _is_document(name: str) -> bool:
    return PurePosixPath(name).stem.lower().startswith(DOCUMENTS)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    """The name without its ending, folder included, letters composed."""
    return normalize("NFC", str(PurePosixPath(name).with_suffix("")))
