"""Where each setting of a run came from, for its record and its report."""

from __future__ import annotations

from collections.abc import Mapping

from adapt.config import TrainSettings


def origins_of(
    settings: TrainSettings, given: Mapping[str, str] | None = None, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Name → `default`, `given`, `the base`, `another setting`, a file, `command line`.

    Args:
        settings: settled ones.
        given: as `adapt.config.resolve` found them; None: `said_of` these.
        before: the record of the run that is resumed.
    """
    given = said_of(settings) if given is None else given
    return {name: _origin(settings, name, given, before or {}) for name in type(settings).model_fields}


def said_of(settings: TrainSettings) -> dict[str, str]:
    """For settings that were made in Python: what was said when they were made."""
    return dict.fromkeys(settings.model_fields_set, "given")


def _origin(settings: TrainSettings, name: str, given: Mapping[str, str], before: Mapping[str, str]) -> str:
    default, value = type(settings).model_fields[name].default, getattr(settings, name)
    said = given.get(name, "default")
    if said == "the run":
        return before.get(name, said)
    if said != "default" or value == default:
        return said
    return "the base" if default is None else "another setting"
