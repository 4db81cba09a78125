"""What a setting is made of: its limits, and what a change of it means for a run that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

COURSE, SHOW = "course", "show"
"""What a change at resume does: alters what is learned, or only what is written and shown."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Unsettled:
    """Stands for a value that a file names without saying one thing: somebody has to give it."""

    reason: str


class Section(BaseModel):
    """Settings that belong together; all sections together are `TrainSettings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def show(default: Any, description: str, **limits: Any) -> Any:
    """A setting that changes only what is written and shown."""
    return Field(default, description=description, json_schema_extra={"kind": SHOW}, **limits)
