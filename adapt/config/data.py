"""Which pictures, and what is done with them before they are learned."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from adapt.config.fields import Section, Share


class DataSettings(Section):
    """Which pictures, and what is done with them before they are learned."""

    resolution: int | None = Field(
        None, ge=16, description="side of the square pictures, px (of buckets: of their area); None: the base's own"
    )
    background: str = Field("white", description="what pictures with transparency are laid on")
    flip: Share = Field(0.0, description="probability of mirroring a picture, unless a caption tells left from right")
    resolutions: tuple[int, ...] = Field(
        (), description="several sides, px: each picture is seen at each of them; none: at `resolution` alone"
    )
    buckets: bool = Field(False, description="keep the aspects of pictures: batches of one size each, not square crops")
    bucket_step: int | None = Field(
        None,
        ge=2,
        description="sides of buckets are multiples of it, px; None: an eighth of the resolution, at most 64",
    )
    bucket_aspect: float = Field(2.0, ge=1, le=8, description="longest side of a bucket, in shortest ones")
    crop: Literal["centre", "random"] = Field("centre", description="where what does not fit is cut off")
    colour: Share = Field(0.0, description="how much colours change; 1: by up to 20 %, hues by 18°")
    variants: int = Field(
        8, ge=2, le=256, description="of each picture, cached, with crop=random or colour; the first is the plain one"
    )
    seconds: float | None = Field(
        None, gt=0, le=600, description="length of the sounds that are learned, s; None: the base's own"
    )
    convert_sounds: bool = Field(
        False, description="bring sounds of another rate or with other channels to the base's, instead of stopping"
    )
    frames: int | None = Field(
        None, ge=1, le=1000, description="frames of the clips that are learned; None: the base's own"
    )
    fps: float | None = Field(None, gt=0, le=240, description="frames a second of these clips; None: the base's own")
    source_folder: str | None = Field(
        None,
        description="folder of what pictures were before, by the same names, for bases that edit; None: as metadata says",
    )
    inpaint_masks: int | None = Field(
        None,
        ge=1,
        le=256,
        description="holes of each picture that inpainting bases learn to fill, cached; its own mask is its only one; None: 8",
    )
    mask_outside: Share = Field(0.1, description="weight of what a picture's mask leaves out")
    trigger: str | None = Field(None, description="word put before every caption")
    skip_bad: bool = Field(False, description="leave out pictures that cannot be used, instead of stopping")
    validation: str | float | None = Field(
        None, description="held-out pictures: a folder, a fraction of the data, or auto (a fifth, 4 to 40); None: none"
    )
    caption_dropout: Share = Field(0.1, description="share of captions replaced by the empty one, for guidance")
    shuffle_tags: bool = Field(False, description="change the order of a caption's tags, which commas separate")
    keep_tags: int = Field(0, ge=0, le=1000, description="so many first tags stay in front, besides the trigger")
    keep_tags_separator: str | None = Field(
        None, min_length=1, description="text in captions that fences off the tags that stay; kohya's: three bars"
    )
    tag_dropout: Share = Field(0.0, description="probability of leaving out a tag that may move")
    tag_variants: int = Field(8, ge=1, le=1000, description="orders of each caption's tags; all are encoded beforehand")
    repeats: Literal["ignore", "folders"] = Field(
        "ignore", description="folders: pictures in 10_cat are drawn ten times an epoch (kohya); ignore: all once"
    )
    masks: Literal["none", "files", "alpha"] = Field(
        "none", description="where pictures count: -masklabel files beside them or in mask/, or their alpha channel"
    )

    @field_validator("resolutions")
    @classmethod
    def _sides(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(side < 16 for side in value) or len(set(value)) < len(value):
            raise ValueError("different sides of 16 px or more")
        return value

    @model_validator(mode="after")
    def _of_buckets(self) -> Self:
        """What says how pictures are cut and varied goes with what cuts and varies them."""
        if self.resolution and self.resolutions and self.resolution not in self.resolutions:
            raise ValueError(
                f"resolution ({self.resolution}) is none of resolutions ({', '.join(map(str, self.resolutions))})"
            )
        if not self.buckets and (self.bucket_step, self.bucket_aspect) != (None, 2.0):
            raise ValueError("bucket_step and bucket_aspect are of buckets=true")
        if self.crop == "centre" and not self.colour and self.variants != 8:
            raise ValueError(
                f"variants ({self.variants}) go with crop=random or colour: without, all would be the same"
            )
        return self

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return value
        if value is not None and not (math.isfinite(value) and 0 <= value < 1):
            raise ValueError("a fraction lies between 0 and 1; otherwise give a folder, or auto")
        return value or None

    @field_validator("trigger")
    @classmethod
    def _seen(cls, value: str | None) -> str | None:
        if value is not None and value and not value.strip():
            raise ValueError("there is nothing to be seen in it")
        return value

    @model_validator(mode="after")
    def _tags_move(self) -> Self:
        """What stays in front means something only where tags move."""
        if not (self.shuffle_tags or self.tag_dropout):
            for name in ("keep_tags", "keep_tags_separator"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} ({getattr(self, name)}) does something only with shuffle_tags or tag_dropout"
                    )
        return self
