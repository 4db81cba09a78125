"""Where settings come from: command line over file over defaults, each value with its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapt.config.distillation import distill_defaults
from adapt.config.fields import Unsettled
from adapt.config.learning import own_defaults
from adapt.config.names import OTHER_NAMES
from adapt.config.presets import preset_defaults
from adapt.config.settings import TrainSettings
from adapt.config.slider import slider_defaults
from adapt.errors import SettingsError, did_you_mean

LENGTHS = ("steps", "epochs")
"""Two ways to say how long a run is; a run has one of them."""


@dataclass(frozen=True)
class Resolved:
    """Settings and, for each name, `default`, the file, `command line`, or the optimizer whose own default it is."""

    settings: TrainSettings
    origins: Mapping[str, str]


def resolve(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    stored: Mapping[str, Any] | None = None,
    beneath: tuple[str, Mapping[str, Any]] = ("", {}),
) -> Resolved:
    """Settings from a YAML or JSON file and `key=value` words.

    Args:
        stored: the settings of a run that is resumed; they stand where defaults would.
        beneath: who gives settings that all others go before, and these settings: a data set that brings its own.

    Raises:
        SettingsError: the file is missing or unreadable; a key is unknown; a value is not allowed. All faults at once.
    """
    source, brought = beneath
    values = {**brought, **(stored or {})}
    origins = {name: "the run" if name in (stored or {}) else source if name in brought else "default"
               for name in TrainSettings.model_fields}  # fmt: skip
    for origin, given in ((str(file), read_file(file) if file else {}), ("command line", parse_overrides(overrides))):
        require_known(list(given), origin)
        for name in LENGTHS:  # a length that is given here takes the place of the other, given elsewhere
            if any(given.get(other) is not None for other in LENGTHS if other != name) and given.get(name) is None:
                values.pop(name, None)
                origins[name] = "default"
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    require_settled(values)
    settings = validate(values)
    for name in preset_defaults(values):
        origins[name] = f"preset={settings.preset}"
    for name in own_defaults(values):
        origins[name] = settings.optimizer
    for name in distill_defaults(values):
        origins[name] = f"distill={settings.distill}"
    for name in slider_defaults(values):
        origins[name] = "slider"
    return Resolved(settings, origins)


def read_file(path: Path) -> dict[str, Any]:
    """A YAML (or JSON, which is YAML) file with one mapping."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError("no such settings file", given=path) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            "the settings file cannot be read", given=f"{path}: {error}", allowed="YAML or JSON"
        ) from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError("the settings file holds no mapping", given=path, allowed="lines such as `rank: 16`")
    return dict(content)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["rank=8", "previews=[red fox, tulip]"]` → values, read as YAML."""
    import yaml

    values = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise SettingsError("a setting is written key=value", given=word, allowed="for example rank=16")
        try:
            values[name] = yaml.safe_load(text if not text.startswith("#") else f"'{text}'") if text else None
        except (yaml.YAMLError, ValueError):  # an impossible date, say
            values[name] = text
    return values


def require_known(names: Sequence[str], origin: str = "settings") -> None:
    """Raises `SettingsError` naming every unknown name with the nearest known one."""
    known = list(TrainSettings.model_fields)
    unknown = [str(name) for name in names if name not in known]
    if not unknown:
        return
    hints = {name: OTHER_NAMES.get(name) or did_you_mean(name, known) for name in unknown}
    named = ", ".join(f"{name} (did you mean {hint}?)" if hint else name for name, hint in hints.items())
    raise SettingsError(
        f"unknown {'setting' if len(unknown) == 1 else 'settings'}: {named}",
        given=f"from {origin}",
        next="`adapt train --settings` lists every setting",
    )


def require_settled(values: Mapping[str, Any]) -> None:
    """Raises `SettingsError` naming every value that a file leaves open."""
    if open_ := {name: value.reason for name, value in values.items() if isinstance(value, Unsettled)}:
        words = " ".join(f"{name}=…" for name in open_)
        raise SettingsError("; ".join(open_.values()), next=f"say what you want: {words}")


def validate(values: Mapping[str, Any]) -> TrainSettings:
    """The model, or one `SettingsError` that names every fault."""
    try:
        return TrainSettings.model_validate(dict(values))
    except ValidationError as error:
        faults = [_fault(e) for e in error.errors()]
        raise SettingsError("; ".join(dict.fromkeys(faults))) from error


def _fault(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    given = f", given {error['input']!r}" if name else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower() + message[1:]}{given}" if name else message
