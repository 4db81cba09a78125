"""Data sets as tables, through `datasets`: parquet or arrow files, and what `save_to_disk` wrote.

Pictures stay encoded, so that our own judgement sees them. What `datasets` caches goes to a temporary folder, which is
removed.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapt.data.captions import caption_of_label, captions_of, clean
from adapt.data.picture import Found, Picture
from adapt.data.wording import listed
from adapt.errors import DataError

PICTURE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt")
_ALLOWED = "a column of pictures (image), and one of captions (text, caption) or labels (label)"


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

    with _quiet(root, datasets), _temporary_folder() as cache:
        return _found(root, datasets.load_dataset(str(root), cache_dir=cache), datasets)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of one parquet file. Raises DataError when it cannot be read."""
    import datasets

    with _quiet(path, datasets), _temporary_folder() as cache:
        return [dict(row) for row in datasets.Dataset.from_parquet(str(path), cache_dir=cache)]


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
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


def _found(root: Path, loaded: Any, datasets: Any) -> Found:
    split, warnings = _split(root, loaded, datasets)
    features = split.features
    column = _picture_column(root, features, datasets)
    if isinstance(features[column], datasets.Image):
        split = split.cast_column(column, datasets.Image(decode=False))
    text = next((name for name in CAPTION_COLUMNS if name in features), None)
    label_of = _label_reader(features.get("label"))
    chosen = [name for name in (column, text, "label") if name in features]
    rows = enumerate(split.select_columns(chosen))
    pictures = [_picture(root, i, row[column], row.get(text), label_of(row.get("label"))) for i, row in rows]
    if not pictures:
        raise DataError("The table has no rows", given=root)
    if missing := [f"{p.name}: {p.path or 'nothing'}" for p in pictures if not _is_there(p)]:
        raise DataError("Rows of the table have no picture", given=listed(missing), next="complete or remove them")
    if bare := [p.name for p in pictures if not p.captions]:
        warnings += [f"Pictures without a caption, trained with an empty one ({len(bare)}): {listed(bare)}"]
    return Found(tuple(pictures), tuple(warnings), "table")


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
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
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


def _picture(root: Path, index: int, cell: object, text: object, label: str | None) -> Picture:
    content, place = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, str):
        content, place = None, content
    path = None if content is not None or not place else root / str(place)
    captions = captions_of(text) or ((caption_of_label(label),) if label else ())
    return Picture(f"row-{index:06d}", path, content if isinstance(content, bytes) else None, captions, label)


def _is_there(picture: Picture) -> bool:
    return picture.content is not None or (picture.path is not None and picture.path.is_file())
