"""Prompt files: one prompt a line with kohya's options, or JSON lines with the API's names. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.errors import DataError, SettingsError
from adapt.sampling.pictures import load_image, load_mask
from adapt.sampling.request import Request, unknown_setting
from adapt.sampling.variants import BY_SEED, Variants

if TYPE_CHECKING:
    from PIL.Image import Image

Row = Mapping[str, Any]
"""Settings of one line by the API's names; what is not said is left out."""

OPTION = re.compile(r"(?:^|\s)--([A-Za-z]+)(?:\s+|$)")
OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative_prompt", str),
    "s": ("steps", int),
    "d": ("seed", int),
    "l": ("guidance_scale", float),
    "w": ("width", int),
    "h": ("height", int),
    "ss": ("scheduler", str),
}
"""kohya's options, as its sample-prompt files have them."""

KEYS = [*Request.names(), "count"]
PICTURES = ("image", "mask", "image_prompt", "control")
"""Settings that are files, from the prompt file's folder."""


def read_prompts(path: Path) -> list[Row]:
    """The rows of a prompt file. Empty lines and lines that start with `#` are left out.

    Args:
        path: `.jsonl` and `.ndjson` hold one JSON object a line; any other file one prompt a line, with `--n` negative,
            `--s` steps, `--d` seed, `--l` guidance, `--w` width, `--h` height, `--ss` scheduler after it. JSON lines
            have the API's names; `image` and `mask` are paths from the prompt file's folder.

    Raises:
        DataError: not there, not UTF-8, or without a prompt.
        SettingsError: a line that cannot be read; its number is named.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("the prompt file is not UTF-8", given=path, next="save it as UTF-8") from error
    except OSError as error:
        raise DataError("the prompt file cannot be read", given=path, next="check the path") from error
    parse = partial(_json_row, path.parent) if path.suffix.lower() in (".jsonl", ".ndjson") else _text_row
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    rows = [parse(line, f"{path.name}, line {number}") for number, line in filled if line and not line.startswith("#")]
    if not rows:
        raise DataError("the prompt file holds no prompt", given=path, allowed="one prompt a line")
    return rows


def _text_row(line: str, where: str) -> Row:
    prompt, *pieces = OPTION.split(line)
    row: dict[str, Any] = {"prompt": prompt.strip()}
    for option, text in zip(pieces[::2], pieces[1::2], strict=True):
        if option not in OPTIONS:
            raise unknown_setting(f"--{option}", where, [f"--{known}" for known in OPTIONS])
        name, kind = OPTIONS[option]
        row[name] = _value(text.strip(), kind, f"--{option} in {where}")
    return row


def _value(text: str, kind: Callable[[str], Any], where: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        allowed = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{where} cannot be read", given=text, allowed=allowed) from error


def _json_row(folder: Path, line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SettingsError(f"{where} is no JSON: {error}", given=line[:80]) from error
    if not isinstance(row, dict) or "prompt" not in row:
        raise SettingsError(f"{where} has no prompt", given=line[:80], allowed='{"prompt": "…", …}')
    for name in row:
        if name not in KEYS:
            raise unknown_setting(name, where, KEYS)
    said = {name: value for name, value in row.items() if value is not None}
    return {**said, **{name: folder / str(said[name]) for name in PICTURES if name in said}}


def requests_of(template: Request, rows: Sequence[Row], variants: Variants = BY_SEED) -> list[Request]:
    """One request a picture: `count` of each row, with rising seeds; every variant of it, where all are drawn.

    Args:
        template: what holds where a row says nothing.
        rows: `image` and `mask` are paths.
        variants: how they are chosen.

    Raises:
        SettingsError: a setting out of range.
        DataError: a picture that cannot be read, or wildcards.
    """
    images, masks = cache(load_image), cache(load_mask)  # one object a file: its pictures share batches
    return variants([request for row in rows for request in _pictures_of(template, row, images, masks)])


def _pictures_of(
    template: Request, row: Row, images: Callable[[Path], Image], masks: Callable[[Path], Image]
) -> list[Request]:
    settings = {name: value for name, value in row.items() if name not in ("count", *PICTURES)}
    count: Any = row.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise SettingsError("count is out of range", given=repr(count), allowed="a whole number from 1")
    image = images(row["image"]) if "image" in row else None
    mask = masks(row["mask"]) if "mask" in row else None
    reference = images(row["image_prompt"]) if "image_prompt" in row else template.image_prompt
    control = images(row["control"]) if "control" in row else template.control
    first = replace(template, **settings, image=image, mask=mask, image_prompt=reference, control=control)
    return [replace(first, seed=first.seed + number) for number in range(count)]
