"""Several sources at once: a list of them in YAML or JSON.

sources:
  - path: ./my-dog            # anything that `find` takes; relative to this file
    repeats: 10               # each picture ten times an epoch; `folders`: as folders such as 10_dog say
    trigger: zxc dog
  - path: ./other-dogs.tar
    prior: true               # what the base shall go on knowing; by default drawn as often as all that is taught

`weight` instead of `repeats` is a share of the draws: weights 3 and 1 are three quarters and one, whatever the numbers of
pictures. Either all sources have a weight or none has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adapt.data.captions import clean
from adapt.data.find import find_one, path_of
from adapt.data.folders import Reading
from adapt.data.picture import Found, Picture
from adapt.data.snapshot import is_hub_id
from adapt.data.walk import suffix
from adapt.data.wording import printable
from adapt.errors import DataError, SettingsError, did_you_mean

LARGEST = 1_000_000
_Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
_OTHER_NAMES = {
    **{"image_dir": "path", "folder": "path", "directory": "path", "dir": "path", "data": "path", "name": "path"},
    **{"num_repeats": "repeats", "repeat": "repeats", "is_reg": "prior", "regularisation": "prior", "reg": "prior"},
    **{"class_tokens": "trigger", "trigger_word": "trigger", "keep_tokens": "keep_tags", "probability": "weight"},
}
"""What kohya's, ai-toolkit's and SimpleTuner's files call these fields."""


class Source(BaseModel):
    """One source of several."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str = Field(min_length=1, description="a folder or whatever else `find` takes, relative to the list's file")
    repeats: float | Literal["folders"] | None = Field(None, description="times an epoch that each picture is drawn")
    weight: _Positive | None = Field(None, description="share of the draws, relative to the other sources' weights")
    trigger: str | None = Field(None, min_length=1, description="word that its captions shall hold")
    keep_tags: int | None = Field(None, ge=0, description="first tags that stay in front when tags are shuffled")
    prior: bool = Field(False, description="regularisation pictures: what the base shall go on knowing")

    @field_validator("repeats", mode="before")
    @classmethod
    def _number_or_word(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST
        if is_number or value in ("folders", None):
            return value
        raise ValueError(f"a number above 0, or folders, not {value!r}")

    @field_validator("trigger")
    @classmethod
    def _word(cls, value: str | None) -> str | None:
        if value is not None and not clean(value):
            raise ValueError("there is nothing to be seen in it")
        return value and clean(value)

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if self.weight is not None and self.repeats not in (None, "folders"):
            raise ValueError("weight and repeats contradict each other: a weight sets the repeats")
        if self.prior and self.trigger:
            raise ValueError("a prior source has no trigger: it shows what is not taught")
        return self


class SourceList(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sources: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _together(self) -> Self:
        weights = [source.weight for source in self.sources]
        if any(weights) and not all(weights):
            raise ValueError("some sources have a weight and some have none: give one to all or to none")
        if all(source.prior for source in self.sources):
            raise ValueError("every source is prior: nothing is taught")
        return self


@dataclass(frozen=True)
class Part:
    """What one source holds, before it is mixed with the others.

    Attributes:
        name: short and different from the others' names.
        share: its weight, or None.
        repeats: of each picture, besides its own; None: 1, or, for prior pictures, so many that they are drawn as often as all
            that is taught.
    """

    name: str
    found: Found
    share: float | None = None
    repeats: float | None = None
    prior: bool = False


def places_of(path: Path) -> list[Path]:
    """Where the sources of a list are.

    Raises:
        SettingsError: the file is no list of sources; all faults are named.
    """
    return [_place(path, source.path) for source in _parsed(path).sources]


def read_sources(path: Path, reading: Reading) -> Found:
    """The pictures of all sources of a list, named `my-dog/001.png`.

    Raises:
        SettingsError: the file is no list of sources; all faults are named.
        DataError: a source cannot be used (it is named).
    """
    sources = _parsed(path).sources
    places = [_place(path, source.path) for source in sources]
    _refuse_twice([source.path for source in sources], places)
    names = unique(place.stem if place.suffix else place.name for place in places)
    return mixed(
        _part(name, place, source, reading) for name, place, source in zip(names, places, sources, strict=True)
    )


def mixed(parts: Iterable[Part]) -> Found:
    """All pictures of the parts, `repeats` set so that each part is drawn as often as it shall be."""
    parts = list(parts)
    factors = factors_of(parts)
    pictures = [
        replace(_renamed(picture, part.name), repeats=picture.repeats * factor, prior=part.prior)
        for part, factor in zip(parts, factors, strict=True)
        for picture in part.found.pictures
    ]
    warnings = [f"{part.name}: {warning}" for part in parts for warning in part.found.warnings]
    return Found(tuple(pictures), tuple(warnings), "sources")


def factors_of(parts: Sequence[Part]) -> list[float]:
    """What the repeats of each part's pictures are multiplied by.

    With weights an epoch has as many draws as there are pictures, shared as the weights say. Without, prior parts that say
    nothing share as many draws as all that is taught, in proportion to their numbers of pictures (kohya's rule).
    """
    draws = [sum(picture.repeats for picture in part.found.pictures) for part in parts]
    if all(part.share is not None for part in parts):
        count, whole = sum(len(part.found.pictures) for part in parts), sum(part.share or 0 for part in parts)
        return [count * (part.share or 0) / whole / own for part, own in zip(parts, draws, strict=True)]
    taught = sum(own * (part.repeats or 1) for part, own in zip(parts, draws, strict=True) if not part.prior)
    free = sum(own for part, own in zip(parts, draws, strict=True) if part.prior and part.repeats is None)
    return [part.repeats or (taught / free if part.prior else 1.0) for part in parts]


def unique(names: Iterable[str]) -> list[str]:
    """`a, b, a` → `a, b, a-2`."""
    seen, given = Counter[str](), []
    for name in map(printable, names):
        seen[name] += 1
        given.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return given


def named(source: str, find: Callable[[], Found]) -> Found:
    """What `find` gives; what it complains of says in which source."""
    try:
        return find()
    except DataError as error:
        message = f"{printable(source)}: {error.message}"
        raise DataError(message, given=error.given, allowed=error.allowed, next=error.next) from error


# ------------------------------------------------------------------------------------------------ how
def _place(file: Path, written: str) -> Path:
    """Relative to the list; the id of a data set on the Hub stays what it is."""
    beside = file.parent / path_of(written)
    return Path(written) if is_hub_id(written) and not beside.exists() else beside


def _part(name: str, place: Path, source: Source, reading: Reading) -> Part:
    found = named(source.path, lambda: find_one(place, _reading(reading, source)))
    own = (replace(picture, trigger=source.trigger, keep_tags=source.keep_tags) for picture in found.pictures)
    repeats = None if source.repeats in (None, "folders") else float(source.repeats)
    return Part(name, replace(found, pictures=tuple(own)), source.weight, repeats, source.prior)


def _reading(reading: Reading, source: Source) -> Reading:
    if source.repeats is None:
        return reading
    return replace(reading, repeats="folders" if source.repeats == "folders" else "ignore")


def _renamed(picture: Picture, source: str) -> Picture:
    return replace(picture, name=f"{source}/{picture.name}")


def _refuse_twice(written: Sequence[str], places: Sequence[Path]) -> None:
    counts = Counter(place.resolve() for place in places)
    if twice := [name for name, place in zip(written, places, strict=True) if counts[place.resolve()] > 1]:
        raise SettingsError(
            "A source stands there twice", given=", ".join(twice), next="give it once, with more repeats"
        )


def _parsed(path: Path) -> SourceList:
    content = _content(path)
    if not isinstance(content, dict) or "sources" not in content:
        given = f"{path} with {', '.join(map(str, content))}" if isinstance(content, dict) and content else path
        raise SettingsError(
            "The file is no list of sources",
            given=given,
            allowed="`sources:` with a list of `path: …`",
            next=_next(content),
        )
    try:
        return SourceList.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(dict.fromkeys(_fault(e) for e in error.errors()))
        raise SettingsError(faults, given=f"from {path}", next="docs/data.md shows such a file") from error


def _content(path: Path) -> Any:
    import yaml

    try:
        text = path.read_text("utf-8")
        return json.loads(text) if suffix(path.name) == ".json" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise DataError("There is no such list of sources", given=path, next="give a folder or a file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError("The list of sources cannot be read", given=f"{path}: {error}", allowed="YAML") from error


def _next(content: Any) -> str:
    from adapt.config import TrainSettings

    if isinstance(content, dict) and set(map(str, content)) & set(TrainSettings.model_fields):
        return "settings are given with --config"
    return "docs/data.md shows such a file"


def _fault(error: Any) -> str:
    """`source 2: repeat is unknown (did you mean repeats?)`."""
    place = list(error["loc"])
    where = f"source {place[1] + 1}: " if len(place) > 1 and isinstance(place[1], int) else ""
    name = str(place[-1]) if place and isinstance(place[-1], str) else ""
    if error["type"] == "extra_forbidden":
        known = list(Source.model_fields if where else SourceList.model_fields)
        hint = _OTHER_NAMES.get(name) or did_you_mean(name, known)
        return f"{where}{name} is unknown" + (f" (did you mean {hint}?)" if hint else f" (known: {', '.join(known)})")
    message = error["msg"].removeprefix("Value error, ")
    message = f"{name}: {message[0].lower()}{message[1:]}" if name else message
    return where + message + ("" if error["type"] in ("missing", "value_error") else f", given {error['input']!r}")
