"""`metadata.jsonl`, `metadata.csv`, `metadata.parquet`: one row a picture, as in `datasets`' image folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.data.captions import caption_of_label, captions_of, clean, decode_text
from adapt.data.pairs import COLUMNS as SOURCES
from adapt.data.pairs import EDITED, INSTRUCTIONS
from adapt.data.wording import listed
from adapt.errors import DataError

FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
NAME_COLUMNS = ("file_name", *EDITED)
CAPTION_COLUMNS = ("text", "caption", "captions", *INSTRUCTIONS)
LABEL_COLUMNS = ("label", "class")
REFERENCES = ("image_prompt", "reference_image", "image_prompt_file_name", "reference_image_file_name")
"""Columns that name the picture by which another one is asked for."""
_ALLOWED = "columns file_name and text (or caption, label, class, image_prompt, source, control)"
_TOLD = {*CAPTION_COLUMNS, *LABEL_COLUMNS, *REFERENCES, *SOURCES}
"""One of these says something of a picture; words may come from class folders, or from nowhere."""


@dataclass(frozen=True)
class Row:
    """One row: the picture's name as it is written there, its captions and label, and the names of its source and reference."""

    file_name: str
    captions: tuple[str, ...]
    label: str | None
    source: str | None = None
    reference: str | None = None


def read_metadata(path: Path) -> list[Row]:
    """The rows of a metadata file. Text may be a string or a list of strings; several rows may name one picture.

    Raises:
        DataError: it cannot be read, is not UTF-8, lacks the columns, or rows are wrong (all are named).
    """
    reader = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[path.suffix]
    try:
        rows = reader(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", given=path, next="correct it, as UTF-8 text") from error
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    _check_columns(path, columns)
    return _checked([_row(line, row, columns) for line, row in rows], path)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not columns:
        raise DataError(f"{path.name} has no rows", given=path, allowed=_ALLOWED, next="fill or remove it")
    if not set(NAME_COLUMNS) & set(columns) or not _TOLD & set(columns):
        given = f"{path} with columns {', '.join(columns)}"
        raise DataError(f"{path.name} lacks a column", given=given, allowed=_ALLOWED, next="rename its columns")


def _row(line: int, row: dict[str, Any], columns: Sequence[str]) -> Row | str:
    """The row, or what is wrong with it."""
    told_by = next(name for name in NAME_COLUMNS if name in columns)
    name, told = row.get(told_by), next((name for name in LABEL_COLUMNS if name in columns), "label")
    label = row.get(told)
    if not isinstance(name, str) or not name:
        return f"line {line}: no file_name"
    column = next((column for column in CAPTION_COLUMNS if column in columns), told)
    try:
        captions = captions_of(row.get(column))
    except TypeError as error:
        return f"line {line}: {error}"
    if column == told:
        captions = tuple(caption_of_label(caption) for caption in captions)
    source = next((str(row[column]) for column in SOURCES if row.get(column)), None)
    reference = next((str(row[column]) for column in REFERENCES if row.get(column)), None)
    return Row(name, captions, None if label in (None, "") else clean(str(label)), source, reference)


def _checked(rows: list[Row | str], path: Path) -> list[Row]:
    if wrong := [row for row in rows if isinstance(row, str)]:
        raise DataError(f"{path.name} has rows that cannot be used", given=listed(wrong), allowed=_ALLOWED)
    return [row for row in rows if isinstance(row, Row)]


def _read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(decode_text(path.read_bytes()).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object {{…}}")
        rows.append((number, row))
    return rows


def _read_csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(decode_text(path.read_bytes()), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more values than columns: put captions in double quotes")
            rows.append((reader.line_num, dict(row)))
    except csv.Error as error:
        raise ValueError(f"{error} after line {reader.line_num}") from error
    return rows


def _read_parquet(path: Path) -> list[tuple[int, dict[str, Any]]]:
    from adapt.data.tables import read_parquet

    return list(enumerate(read_parquet(path), 1))
