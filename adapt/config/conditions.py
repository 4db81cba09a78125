"""What is taught beside captions and layers: classes, reference pictures, and how often each part is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from adapt.config.fields import Section, Share

OF_CLASSES = (
    "class_tokens",
    "class_start",
    "class_learning_rate",
    "class_dropout",
    "class_balance",
    "grow_from",
    "class_rank",
)
OF_IMAGES = ("image_prompt_tokens", "image_prompt_learning_rate", "image_prompt_dropout")
OF_CONTROL = ("control_as", "control_learning_rate", "control_dropout")
SWITCHES = {"classes": OF_CLASSES, "image_prompts": OF_IMAGES, "control": OF_CONTROL}
TURNED_ON = {"classes": "classes=true", "image_prompts": "image_prompts=true", "control": "control=edges"}
PARTS = ("caption", "class", "image", "control", "source")


class ConditionSettings(Section):
    """Classes, reference and control pictures that are taught beside the captions."""

    classes: bool = Field(
        False, description="true: teach the pictures' classes (folders, or the column label); drawn with --class"
    )
    class_tokens: int = Field(4, ge=1, le=64, description="tokens that a class becomes, beside the caption's")
    class_start: Literal["name", "null"] = Field(
        "name", description="what a class is at first: what the text encoder makes of its name, or nothing"
    )
    class_learning_rate: float = Field(
        1e-2, gt=0, le=10, allow_inf_nan=False, description="of the classes' embeddings, at its highest"
    )
    class_dropout: Share = Field(
        0.1, description="share of rows without their class alone, so that --class-scale can guide"
    )
    class_balance: bool = Field(True, description="every class is seen equally often, however many pictures it has")
    grow_from: str | None = Field(
        None, description="a class adapter that learns these further classes; all else in it stays as it is, to the bit"
    )
    class_rank: int = Field(
        8, ge=0, le=1024, description="rank of what a class added by grow_from changes in layers for itself; 0: nothing"
    )
    image_prompts: bool = Field(
        False, description="true: teach to draw what a reference picture shows; drawn with --image-prompt"
    )
    image_prompt_tokens: int = Field(8, ge=1, le=64, description="tokens that a reference picture becomes")
    image_prompt_learning_rate: float = Field(
        1e-3, gt=0, le=10, allow_inf_nan=False, description="of the reference pictures' projector, at its highest"
    )
    image_prompt_dropout: Share = Field(0.1, description="share of rows without their reference picture alone")
    control: Literal["none", "edges", "colours", "files"] = Field(
        "none",
        description="teach to draw along a control: each picture's edges or colours, or files of yours; drawn with --control",
    )
    control_as: Literal["layer", "controlnet"] = Field(
        "layer",
        description="what follows it: a layer beside the first, or a ControlNet, a copy of the UNet's first half",
    )
    control_learning_rate: float = Field(
        1e-3,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="of what takes it in, at its highest; of a ControlNet 1e-5 is usual",
    )
    control_dropout: Share = Field(0.1, description="share of rows without their control alone")
    source_dropout: Share | None = Field(
        None,
        description="share of rows without the picture that is edited alone; None: the base's own, where it has such a null",
    )
    joint_dropout: Share | dict[str, Share] = Field(
        0.05, description="share of rows without any part; or of those without some: {caption+class: 0.05}"
    )

    @field_validator("joint_dropout")
    @classmethod
    def _parts(cls, value: float | Mapping[str, float]) -> Any:
        for name in value if isinstance(value, Mapping) else ():
            parts = name.split("+")
            if len(parts) < 2 or len(set(parts)) < len(parts) or set(parts) - set(PARTS):
                raise ValueError(f"{name!r}: several of {', '.join(PARTS)}, with + between them")
        return value

    @model_validator(mode="after")
    def _of_what_is_taught(self) -> Self:
        for switch, names in SWITCHES.items():
            for name in names:
                if (
                    getattr(self, switch) in (False, "none")
                    and getattr(self, name) != type(self).model_fields[name].default
                ):
                    raise ValueError(f"{name} ({getattr(self, name)}) is of {TURNED_ON[switch]}")
        if self.grow_from is None and self.class_rank != type(self).model_fields["class_rank"].default:
            raise ValueError(f"class_rank ({self.class_rank}) is of grow_from=ADAPTER")
        if not self.dropped_parts and self.joint_dropout != type(self).model_fields["joint_dropout"].default:
            raise ValueError(
                f"joint_dropout ({self.joint_dropout}) is of {', '.join((*TURNED_ON.values(), 'source_dropout'))}"
            )
        if strange := {part for name in self.joint_dropouts for part in name} - {"caption", *self.dropped_parts}:
            raise ValueError(f"joint_dropout names {', '.join(sorted(strange))}, which this run does not teach")
        return self

    @property
    def taught_parts(self) -> tuple[str, ...]:
        """Parts of the condition that are taught."""
        switches = (("class", self.classes), ("image", self.image_prompts), ("control", self.control != "none"))
        return tuple(part for part, on in switches if on)

    @property
    def dropped_parts(self) -> tuple[str, ...]:
        """Parts of the condition, besides the caption, that rows go without."""
        return (*self.taught_parts, *(("source",) if self.source_dropout else ()))

    @property
    def joint_dropouts(self) -> dict[tuple[str, ...], float]:
        """Which parts are left out together, and how often."""
        if not self.dropped_parts:
            return {}
        if isinstance(self.joint_dropout, Mapping):
            return {tuple(name.split("+")): share for name, share in self.joint_dropout.items()}
        return {("caption", *self.dropped_parts): self.joint_dropout}
