"""The settings of a training run: one strict model, flat, made of one section a file.

The same names everywhere: `rank=16` on the command line, `rank: 16` in a file, `TrainSettings(rank=16)` in Python.
"step" is always an optimizer step.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationInfo, field_validator

from adapt.config.data import DataSettings
from adapt.config.fields import COURSE, Section
from adapt.config.learning import LearningSettings
from adapt.config.network import NetworkSettings
from adapt.config.objective import ObjectiveSettings
from adapt.config.run import RunSettings
from adapt.config.watching import WatchingSettings


class TrainSettings(RunSettings, DataSettings, NetworkSettings, LearningSettings, ObjectiveSettings, WatchingSettings):
    """Everything that a training run can be told."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """`flip: true` is no probability of 1; `steps: 1e3`, which YAML 1.1 reads as text, is a whole number."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("takes a value, not true or false")
        whole = int in (annotation, *get_args(annotation))
        return number(value) if whole else value

    def course(self) -> dict[str, Any]:
        """The settings that decide what is learned."""
        return {name: value for name, value in self.model_dump(mode="json").items() if kind(name) == COURSE}


SECTIONS: tuple[type[Section], ...] = TrainSettings.__bases__


def kind(name: str) -> str:
    """`course` or `show`."""
    extra = TrainSettings.model_fields[name].json_schema_extra
    return str(extra["kind"]) if isinstance(extra, dict) else COURSE


def number(value: Any) -> Any:
    """Text that is a number, as one; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
