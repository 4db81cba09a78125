"""Data sets as tables, through `datasets`: parquet or arrow files, and what `save_to_disk` wrote.

Pictures stay encoded, so that our own judgement sees them, and on disk until they are asked for. What `datasets` caches
(Arrow copies of parquet files, which are mapped into memory) goes to a temporary folder, which lasts as long as the pictures;
processes that `--num-processes` started share one.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapt.data.captions import caption_of_label, captions_of, clean
from adapt.data.metadata import LABEL_COLUMNS, REFERENCES
from adapt.data.pairs import COLUMNS as SOURCES
from adapt.data.pairs import EDITED, INSTRUCTIONS
from adapt.data.picture import Found, Picture
from adapt.data.wording import listed
from adapt.errors import DataError

PICTURE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp", *EDITED)
CAPTION_COLUMNS = ("text", "caption", "captions", *INSTRUCTIONS, "prompt")
SHARED = "ADAPT_SHARED"
"""In the environment of processes of one run: a folder of their launcher's, which is removed when all have ended."""
_ALLOWED = "a column of pictures (image), and one of captions (text, caption) or labels (label, class)"


def is_saved(root: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def read_saved(root: Path) -> Found:
    """The pictures of a folder that `save_to_disk` wrote. Raises DataError when it cannot be read."""
    import datasets

    with _quiet(root, datasets):
        return _found(root, datasets.load_from_disk(str(root)), datasets)


def read_tables(root: Path) -> Found:
    """The pictures of a folder with parquet or arrow files: a local copy of a Hub data set. Raises DataError when it
    cannot be read."""
    import datasets

    with _quiet(root, datasets):
        cache = _temporary_folder()
        return _found(root, datasets.load_dataset(str(root), cache_dir=cache.name), datasets, cache)


def read_file(path: Path) -> Found:
    """The pictures of one parquet file. Raises DataError when it cannot be read."""
    import datasets

    with _quiet(path, datasets):
        cache = _temporary_folder()
        table = datasets.Dataset.from_parquet(str(path), cache_dir=cache.name)
        return _found(path.parent, table, datasets, cache)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of one parquet file. Raises DataError when it cannot be read."""
    import datasets

    with _quiet(path, datasets), _temporary_folder() as cache:
        return [dict(row) for row in datasets.Dataset.from_parquet(str(path), cache_dir=cache)]


@dataclass(frozen=True)
class Shared:
    """A temporary folder that others are in too: `datasets` locks a copy while one makes it, and the others find it."""

    name: str

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None: ...


def _temporary_folder() -> tempfile.TemporaryDirectory[str] | Shared:
    if shared := os.environ.get(SHARED):
        return Shared(str(Path(shared) / "tables"))
    # Windows cannot remove files that are still mapped: the system removes those later.
    return tempfile.TemporaryDirectory(prefix="adapt-", ignore_cleanup_errors=True)


@contextmanager
def _quiet(path: Path, datasets: Any) -> Iterator[None]:
    """Without progress bars and log lines; what goes wrong inside `datasets` becomes a DataError naming the path."""
    silent = datasets.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Arrow, fsspec and datasets raise many kinds for damaged tables
        reason = str(error.__cause__ or error)
        raise DataError(f"The table cannot be read: {reason[:200]}", given=path, next="copy it again") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not silent:
            datasets.enable_progress_bars()


@dataclass(frozen=True)
class Table:
    """A column of encoded pictures, on disk.

    Attributes:
        rows: of `datasets`; each a dictionary of this one column.
        column: its name.
        folder: what has to stay as long as the rows are read, or None.
    """

    rows: Any
    column: str
    folder: tempfile.TemporaryDirectory[str] | Shared | None


@dataclass(frozen=True)
class Row:
    """The picture of one row."""

    table: Table
    index: int

    def read(self) -> bytes:
        """Its bytes, as they were put there."""
        try:
            cell = self.table.rows[self.index][self.table.column]
        except Exception as error:  # as in `_quiet`
            raise DataError(f"cannot be read: {error}", next="copy the table again") from error
        return bytes(cell["bytes"] if isinstance(cell, dict) else cell)


def _found(
    root: Path, loaded: Any, datasets: Any, folder: tempfile.TemporaryDirectory[str] | Shared | None = None
) -> Found:
    split, warnings = _split(root, loaded, datasets)
    features = split.features
    column = _picture_column(root, features, datasets)
    if isinstance(features[column], datasets.Image):
        split = split.cast_column(column, datasets.Image(decode=False))
    before, asked = (_table_of(split, names, column, datasets, folder) for names in (SOURCES, REFERENCES))
    text = next((name for name in CAPTION_COLUMNS if name in features), None)
    told = next((name for name in LABEL_COLUMNS if name in features), "label")
    label_of = _label_reader(features.get(told))
    table = Table(split.select_columns([column]), column, folder)
    words = split.select_columns([name for name in dict.fromkeys((text, told)) if name in features])
    rows = zip(_places(table), _rows(words, len(split)), strict=True)
    pictures = [
        _picture(root, Row(table, i), place, row.get(text or ""), label_of(row.get(told)))
        for i, (place, row) in enumerate(rows)
    ]
    if before is not None:
        pictures = [replace(p, source=one) for p, one in zip(pictures, _beside(root, pictures, before), strict=True)]
    if asked is not None:
        pictures = [replace(p, reference=one) for p, one in zip(pictures, _beside(root, pictures, asked), strict=True)]
    if not pictures:
        raise DataError("The table has no rows", given=root)
    if missing := [f"{p.name}: {p.path or 'nothing'}" for p in pictures if not _is_there(p)]:
        raise DataError("Rows of the table have no picture", given=listed(missing), next="complete or remove them")
    if bare := [p.name for p in pictures if not p.captions]:
        warnings += [f"Pictures without a caption, trained with an empty one ({len(bare)}): {listed(bare)}"]
    return Found(tuple(pictures), tuple(warnings), "table")


def _rows(words: Any, count: int) -> Iterator[dict[str, Any]]:
    """Captions and labels, row by row; the pictures are not touched."""
    return iter(words) if words.column_names else ({} for _ in range(count))


def _places(table: Table) -> Iterator[str | None]:
    """Of each row the file that it names, or None when it holds the bytes; "" when it has neither. No bytes are read."""
    for batch in table.rows.with_format("arrow").iter(batch_size=1000):
        for chunk in batch.column(table.column).chunks:
            yield from _places_of(chunk)


def _places_of(cells: Any) -> Iterator[str | None]:
    import pyarrow as pa  # type: ignore[import-untyped]

    content, path = cells, cells
    if pa.types.is_struct(cells.type):
        content, path = (pa.compute.struct_field(cells, name) for name in ("bytes", "path"))
    held = content.is_valid().to_pylist() if _is_bytes(content.type) else [False] * len(cells)
    named = path.to_pylist() if str(path.type) in ("string", "large_string") else [""] * len(cells)
    for here, name in zip(held, named, strict=True):
        yield None if here else name or ""


def _is_bytes(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary")


def _split(root: Path, loaded: Any, datasets: Any) -> tuple[Any, list[str]]:
    """The split `train`, or the only one; a warning names those that are not used."""
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded, []
    names = list(loaded)
    chosen = "train" if "train" in names else names[0]
    if chosen != "train" and len(names) > 1:
        raise DataError(
            "The data set has several splits and none is train",
            given=f"{root}: {', '.join(names)}",
            next="give a folder that holds one of them",
        )
    unused = [name for name in names if name != chosen]
    return loaded[chosen], [f"Only the split {chosen} is used, not {listed(unused)}"] if unused else []


def _picture_column(root: Path, features: Any, datasets: Any) -> str:
    typed = [n for n, feature in features.items() if isinstance(feature, datasets.Image)]
    # What a picture was before, or is asked for by, is not what is learned.
    typed.sort(key=lambda name: name in SOURCES or name in REFERENCES)
    named = [name for name in PICTURE_COLUMNS if name in features]
    for name in [*(n for n in named if n in typed), *typed, *named]:
        return str(name)
    raise DataError("The table has no pictures", given=f"{root} with columns {', '.join(features)}", allowed=_ALLOWED)


def _label_reader(feature: Any) -> Callable[[object], str | None]:
    """Cell of the column `label` → its name."""
    names = getattr(feature, "names", None)

    def read(value: object) -> str | None:
        if value is None or (names and value == -1):
            return None
        return clean(str(names[value] if names and isinstance(value, int) else value)) or None

    return read


def _table_of(
    split: Any, names: Sequence[str], learned: str, datasets: Any,
    folder: tempfile.TemporaryDirectory[str] | Shared | None,
) -> Table | None:  # fmt: skip
    """The first of these columns, of what pictures were before, say; None: there is none."""
    column = next((name for name in names if name in split.features and name != learned), None)
    if column is None:
        return None
    if isinstance(split.features[column], datasets.Image):
        split = split.cast_column(column, datasets.Image(decode=False))
    return Table(split.select_columns([column]), column, folder)


def _beside(root: Path, pictures: Sequence[Picture], table: Table) -> Iterator[Picture | None]:
    """What stands in another column of each picture's row; None: nothing."""
    for number, (picture, place) in enumerate(zip(pictures, _places(table), strict=True)):
        path = root / place if place else None
        content = Row(table, number) if place is None else None
        yield None if place == "" else Picture(f"{picture.name}, {table.column}", path, content)


def _picture(root: Path, row: Row, place: str | None, text: object, label: str | None) -> Picture:
    captions = captions_of(text) or ((caption_of_label(label),) if label else ())
    path = root / place if place else None
    return Picture(f"row-{row.index:06d}", path, row if place is None else None, captions, label)


def _is_there(picture: Picture) -> bool:
    return picture.content is not None or (picture.path is not None and picture.path.is_file())
