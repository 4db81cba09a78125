"""kohya's `dataset_config` (TOML): what it says of the pictures, and which settings it holds.

[general]                          each option may stand here, in a data set or in a subset (where kohya allows it);
shuffle_caption = true             the innermost counts
[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = "dogs"               pictures directly in this folder
  num_repeats = 10

Options of a subset go to its pictures. Options that adapt has once for a whole run become settings; where subsets differ, or
there is nothing like it here, the option is refused with the reason, unless it changes nothing.
(kohya-ss/sd-scripts: docs/config_README-en.md, library/config_util.py.)
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapt.config import Unsettled
from adapt.data.captions import clean
from adapt.data.find import find_one, path_of
from adapt.data.folders import CAPTION_EXTENSIONS, Reading
from adapt.data.masks import with_masks_of
from adapt.data.picture import Found, Picture
from adapt.data.sources import Part, mixed, named, unique
from adapt.data.wording import listed, printable
from adapt.errors import DataError, SettingsError, did_you_mean

SLIGHT = 0.4
"""Our `colour` for kohya's `color_aug`, which turns hues by up to 8°."""
GENERAL, DATASET, SUBSET = "general", "datasets", "subsets"
_ALL, _UPPER = (GENERAL, DATASET, SUBSET), (GENERAL, DATASET)


@dataclass(frozen=True)
class Option:
    """One option of the file.

    Attributes:
        kind: what its value is.
        places: where it may stand.
        default: kohya's.
        setting: our setting and how the value becomes its; None: it is a fact of the pictures, or nothing.
        refused: why any other value than the default is refused.
        ignored: why any value changes nothing here.
    """

    kind: Kind
    places: Sequence[str]
    default: Any = None
    setting: tuple[str, Callable[[Any], Any]] | None = None
    refused: str | None = None
    ignored: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of value: how it is called and what belongs to it."""

    name: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_pair(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(fits, value))


def _same(value: Any) -> Any:
    return value


def _side(value: Any) -> int | Unsettled:
    """`512` or `[512, 512]` → 512."""
    sides = {value} if _is_whole(value) else set(value)
    if len(sides) == 1:
        return int(sides.pop())
    return Unsettled(
        f"resolution {list(value)} is not square: adapt's is the side of a square, whose area buckets keep"
    )


BOOL = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE = Kind("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
POSITIVE = Kind("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1)
NUMBER = Kind("a number", _is_number)
SHARE = Kind("a number between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1)
TEXT = Kind("text", lambda value: isinstance(value, str))
WORDS = Kind("text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
SIZE = Kind("a number of pixels or [width, height]", lambda v: POSITIVE.fits(v) or _is_pair(v, POSITIVE.fits))
PAIR = Kind("two numbers", lambda value: _is_pair(value, _is_number))
TABLE = Kind("a table", lambda value: isinstance(value, dict))

OPTIONS: Mapping[str, Option] = {
    "image_dir": Option(WORDS, (SUBSET,)),
    "num_repeats": Option(POSITIVE, _ALL, 1),
    "class_tokens": Option(WORDS, _ALL),
    "is_reg": Option(BOOL, (SUBSET,), False),
    "caption_extension": Option(WORDS, _ALL),
    "caption_prefix": Option(TEXT, _ALL),
    "caption_suffix": Option(TEXT, _ALL),
    "keep_tokens": Option(WHOLE, _ALL, 0),
    "secondary_separator": Option(WORDS, _ALL),
    "enable_wildcard": Option(BOOL, _ALL, False),
    "conditioning_data_dir": Option(WORDS, (SUBSET,)),
    "alpha_mask": Option(BOOL, (SUBSET,), False, ("masks", lambda value: "alpha" if value else "none")),
    # one for a whole run
    "batch_size": Option(POSITIVE, _UPPER, 1, ("batch_size", _same)),
    "resolution": Option(SIZE, _UPPER, None, ("resolution", _side)),
    "enable_bucket": Option(BOOL, _UPPER, False, ("buckets", _same)),
    "random_crop": Option(BOOL, _ALL, False, ("crop", lambda value: "random" if value else "centre")),
    "color_aug": Option(BOOL, _ALL, False, ("colour", lambda value: SLIGHT if value else 0.0)),
    "flip_aug": Option(BOOL, _ALL, False, ("flip", lambda value: 0.5 if value else 0.0)),
    "shuffle_caption": Option(BOOL, _ALL, False, ("shuffle_tags", _same)),
    "keep_tokens_separator": Option(WORDS, _ALL, None, ("keep_tags_separator", _same)),
    "caption_dropout_rate": Option(SHARE, _ALL, 0.0, ("caption_dropout", float)),
    "caption_tag_dropout_rate": Option(SHARE, _ALL, 0.0, ("tag_dropout", float)),
    "validation_split": Option(SHARE, _UPPER, 0.0, ("validation", float)),
    "bucket_reso_steps": Option(POSITIVE, _UPPER, 64),
    # nothing like it here
    "metadata_file": Option(
        WORDS, (SUBSET,), refused="captions come from files beside the pictures or from metadata.jsonl in the folder"
    ),
    "caption_separator": Option(WORDS, _ALL, ",", refused="tags are separated by commas"),
    "face_crop_aug_range": Option(PAIR, _ALL, refused="faces are not looked for"),
    "caption_dropout_every_n_epochs": Option(WHOLE, _ALL, 0, refused="use caption_dropout_rate"),
    "token_warmup_step": Option(NUMBER, _ALL, 0, refused="captions are whole from the first step on"),
    "skip_image_resolution": Option(SIZE, _UPPER, refused="pictures of all sizes are used: move small ones elsewhere"),
    "network_multiplier": Option(NUMBER, _UPPER, 1.0, refused="every picture counts alike: use num_repeats"),
    # changes nothing here
    "token_warmup_min": Option(WHOLE, _ALL, 1, ignored="it belongs to token_warmup_step"),
    "min_bucket_reso": Option(POSITIVE, _UPPER, 256, ignored="bucket_aspect says how long sides become"),
    "max_bucket_reso": Option(POSITIVE, _UPPER, 1024, ignored="bucket_aspect says how long sides become"),
    "bucket_no_upscale": Option(BOOL, _UPPER, False, ignored="small pictures are enlarged: `adapt check` names them"),
    "cache_info": Option(BOOL, _ALL, False, ignored="nothing is written beside pictures"),
    "resize_interpolation": Option(TEXT, _ALL, ignored="pictures are resized by Lanczos"),
    "validation_seed": Option(WHOLE, _UPPER, ignored="what is held out follows from the pictures and seed"),
    "custom_attributes": Option(TABLE, _ALL, ignored="adapt knows none"),
}


@dataclass(frozen=True)
class Subset:
    """One subset with every option's value: its own, else its data set's, else the general one, else kohya's default.

    Attributes:
        values: option → value.
        given: the options that the file gives it.
    """

    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, option: str) -> Any:
        return self.values[option]


def read_config(path: Path, reading: Reading) -> Found:
    """The pictures of all subsets, named after their folders.

    Raises:
        SettingsError: the file is wrong (all faults are named), or holds an option that adapt cannot follow.
        DataError: a folder cannot be used (it is named), or captions hold wildcards.
    """
    subsets, _ = _once(_subsets(path))
    _refuse(path, subsets)
    names = unique(Path(subset["image_dir"]).name or "subset" for subset in subsets)
    found = mixed(_part(name, path, subset, reading) for name, subset in zip(names, subsets, strict=True))
    return replace(found, warnings=(*found.warnings, *_ignored(path, subsets)))


def settings_in(path: Path) -> dict[str, Any]:
    """Settings that the file gives, by our names; `Unsettled` where it does not say one thing for the whole run.

    Raises:
        SettingsError: the file is wrong; all faults are named.
    """
    subsets = _subsets(path)
    sides = _once(subsets)[1]
    found: dict[str, Any] = {"resolution": sides[0], "resolutions": sides} if sides else {}
    for name, option in OPTIONS.items():
        if option.setting and option.setting[0] not in found and any(name in subset.given for subset in subsets):
            setting, converted = option.setting
            found[setting] = _one_value(name, [subset[name] for subset in subsets], converted)
    if any(subset["conditioning_data_dir"] for subset in subsets):
        found["masks"] = "files"
    if found.get("masks", "none") != "none":
        found["mask_outside"] = 0.0
    if found.get("buckets") is True and any("bucket_reso_steps" in subset.given for subset in subsets):
        found["bucket_step"] = _one_value("bucket_reso_steps", [subset["bucket_reso_steps"] for subset in subsets], int)
    return found


def _once(subsets: Sequence[Subset]) -> tuple[list[Subset], list[int]]:
    """The subsets, and several sides: where whole data sets differ in nothing but resolution and batch, each of their
    pictures is seen at all resolutions, and they stand there once."""
    by_side: dict[str, list[Subset]] = {}
    for subset in subsets:
        by_side.setdefault(str(subset["resolution"]), []).append(subset)
    groups = list(by_side.values())
    if len(groups) < 2 or any(_without_size(group) != _without_size(groups[0]) for group in groups):
        return list(subsets), []
    sides = [_side(group[0]["resolution"]) for group in groups if group[0]["resolution"] is not None]
    if len(sides) < len(groups) or not all(isinstance(side, int) for side in sides):
        return list(subsets), []
    return groups[0], [side for side in sides if isinstance(side, int)]


def _without_size(subsets: Sequence[Subset]) -> list[dict[str, Any]]:
    return [{k: v for k, v in subset.values.items() if k not in ("resolution", "batch_size")} for subset in subsets]


def _one_value(option: str, values: Sequence[Any], converted: Callable[[Any], Any]) -> Any:
    if all(value == values[0] for value in values):
        return converted(values[0])
    given = ", ".join(str(value) for value in dict.fromkeys(map(str, values)))
    return Unsettled(f"{option} differs between subsets ({given}), and adapt has one for the whole run")


# ------------------------------------------------------------------------------------------------ pictures
def _part(name: str, path: Path, subset: Subset, reading: Reading) -> Part:
    folder = path.parent / path_of(subset["image_dir"])
    ending = subset["caption_extension"]
    endings = CAPTION_EXTENSIONS if ending is None else (f".{ending.lower().removeprefix('.')}",)
    own = replace(reading, repeats="ignore", captions=endings, deep=False)
    found = named(subset["image_dir"], lambda: find_one(folder, own))
    if subset["conditioning_data_dir"] and reading.masks == "files":
        masks = path.parent / path_of(subset["conditioning_data_dir"])
        found = named(subset["conditioning_data_dir"], lambda: with_masks_of(found, masks))
    keep = subset["keep_tokens"] if "keep_tokens" in subset.given else None
    pictures = tuple(replace(p, captions=_captions(p, subset), keep_tags=keep) for p in found.pictures)
    _refuse_wildcards(pictures, subset)
    warnings = [*found.warnings, *_cut_captions(found.pictures, subset)]
    if subset["class_tokens"]:
        warnings = [warning for warning in warnings if "without a caption" not in warning]
    return Part(
        name, replace(found, pictures=pictures, warnings=tuple(warnings)), None, _repeats(subset), subset["is_reg"]
    )


def _repeats(subset: Subset) -> float | None:
    """None for regularisation pictures: they are drawn as often as all others, whatever their `num_repeats` (kohya's rule)."""
    return None if subset["is_reg"] else float(subset["num_repeats"])


def _captions(picture: Picture, subset: Subset) -> tuple[str, ...]:
    """kohya reads the first line of a caption file, all of them with `enable_wildcard`; class tokens where there is none."""
    lines = picture.captions if subset["enable_wildcard"] else picture.captions[:1]
    captions = lines or ((subset["class_tokens"],) if subset["class_tokens"] else ())
    around = (subset["caption_prefix"] or "", subset["caption_suffix"] or "")
    if any(around):
        captions = tuple(around[0] + caption + around[1] for caption in captions or ("",))
    if subset["secondary_separator"]:
        captions = tuple(caption.replace(subset["secondary_separator"], ",") for caption in captions)
    return tuple(text for caption in captions if (text := clean(caption)))


def _cut_captions(pictures: Sequence[Picture], subset: Subset) -> list[str]:
    longer = [p.name for p in pictures if len(p.captions) > 1 and not subset["enable_wildcard"]]
    return (
        [f"Caption files of which kohya reads the first line only ({len(longer)}): {listed(longer)}"] if longer else []
    )


def _refuse_wildcards(pictures: Sequence[Picture], subset: Subset) -> None:
    if not subset["enable_wildcard"]:
        return
    if wild := [p.name for p in pictures if any(re.search(r"\{[^{}]*\|[^{}]*\}", caption) for caption in p.captions)]:
        raise DataError(
            "Captions hold wildcards such as {a|b}, which adapt does not draw",
            given=listed(wild),
            next="write each wording on a line of its own",
        )


# ------------------------------------------------------------------------------------------------ what cannot be followed
def _refuse(path: Path, subsets: Sequence[Subset]) -> None:
    reasons = [
        f"{name} ({option.refused})"
        for name, option in OPTIONS.items()
        if option.refused and any(subset[name] != option.default for subset in subsets)
    ]
    moving = any(subset["shuffle_caption"] or subset["caption_tag_dropout_rate"] for subset in subsets)
    if moving and any(subset["secondary_separator"] for subset in subsets):
        reasons.append("secondary_separator with shuffle_caption or caption_tag_dropout_rate (tags move one by one)")
    if reasons:
        raise SettingsError(
            f"{len(reasons)} options that adapt cannot follow: {'; '.join(reasons)}",
            given=path,
            next="take them out of the file",
        )


def _ignored(path: Path, subsets: Sequence[Subset]) -> list[str]:
    told = [
        f"{name} ({option.ignored})"
        for name, option in OPTIONS.items()
        if option.ignored and any(name in subset.given for subset in subsets)
    ]
    return [f"Options of {path.name} that change nothing ({len(told)}): {'; '.join(told)}"] if told else []


# ------------------------------------------------------------------------------------------------ the file
def _subsets(path: Path) -> list[Subset]:
    content = _content(path)
    faults = list(_faults(content))
    if faults:
        raise SettingsError("; ".join(faults), given=f"from {path}", next="correct the file")
    defaults = {name: option.default for name, option in OPTIONS.items()}
    general = content.get(GENERAL, {})
    found = []
    for dataset in content[DATASET]:
        for subset in dataset[SUBSET]:
            given = {k: v for level in (general, dataset, subset) for k, v in level.items() if k in OPTIONS}
            found.append(Subset({**defaults, **given}, frozenset(given)))
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError("There is no such dataset_config", given=path, next="give a folder or a file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError("The dataset_config cannot be read", given=f"{path}: {error}", allowed="TOML") from error


def _faults(content: Mapping[str, Any]) -> Iterator[str]:
    yield from (_unknown("", name, [GENERAL, DATASET]) for name in content if name not in (GENERAL, DATASET))
    yield from _faults_of(GENERAL, content.get(GENERAL, {}), GENERAL)
    if not _is_rows(content.get(DATASET)):
        yield "datasets: at least one [[datasets]] is needed"
        return
    for i, dataset in enumerate(content[DATASET], 1):
        yield from _faults_of(f"data set {i}", {k: v for k, v in dataset.items() if k != SUBSET}, DATASET)
        if not _is_rows(dataset.get(SUBSET)):
            yield f"data set {i}: at least one [[datasets.subsets]] is needed"
            continue
        for j, subset in enumerate(dataset[SUBSET], 1):
            yield from _faults_of(f"data set {i}, subset {j}", subset, SUBSET)
            if "image_dir" not in subset:
                yield f"data set {i}, subset {j}: image_dir is missing"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _faults_of(where: str, options: Any, place: str) -> Iterator[str]:
    if not isinstance(options, dict):
        yield f"{where}: a table is needed, not {options!r}"
        return
    for name, value in options.items():
        option = OPTIONS.get(name)
        if option is None:
            yield _unknown(f"{where}: ", name, list(OPTIONS))
        elif place not in option.places:
            yield f"{where}: {name} belongs to {' or '.join(option.places)}"
        elif not option.kind.fits(value):
            yield f"{where}: {name} is {option.kind.name}, not {value!r}"


def _unknown(where: str, name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"{where}{printable(name)} is unknown" + (f" (did you mean {hint}?)" if hint else "")
