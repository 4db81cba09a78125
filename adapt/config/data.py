"""Which pictures, and what is done with them before they are learned."""

from __future__ import annotations

import math

from pydantic import Field, field_validator

from adapt.config.fields import Section, Share


class DataSettings(Section):
    """Which pictures, and what is done with them before they are learned."""

    resolution: int | None = Field(None, ge=16, description="side of the square pictures, px; None: the base's own")
    background: str = Field("white", description="what pictures with transparency are laid on")
    flip: Share = Field(0.0, description="probability of mirroring a picture")
    trigger: str | None = Field(None, description="word put before every caption")
    skip_bad: bool = Field(False, description="leave out pictures that cannot be used, instead of stopping")
    validation: str | float | None = Field(
        None, description="held-out pictures: a folder, or a fraction of the data; None: none"
    )
    caption_dropout: Share = Field(0.1, description="share of captions replaced by the empty one, for guidance")

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return value
        if value is not None and not (math.isfinite(value) and 0 <= value < 1):
            raise ValueError("a fraction lies between 0 and 1; otherwise give a folder")
        return value or None
