"""Classes that are taught beside the captions."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from adapt.config.fields import Section, Share

OWN = ("class_tokens", "class_learning_rate", "class_dropout", "joint_dropout", "class_balance", "grow_from")
"""Settings that mean nothing while no classes are taught."""


class ClassSettings(Section):
    """Classes that are taught beside the captions."""

    classes: bool = Field(
        False, description="true: teach the pictures' classes (folders, or the column label); drawn with --class"
    )
    class_tokens: int = Field(4, ge=1, le=64, description="tokens that a class becomes, beside the caption's")
    class_learning_rate: float = Field(
        1e-2, gt=0, le=10, allow_inf_nan=False, description="of the classes' embeddings, at its highest"
    )
    class_dropout: Share = Field(
        0.1, description="share of rows without their class alone, so that --class-scale can guide"
    )
    joint_dropout: Share = Field(0.05, description="share of rows with neither caption nor class")
    class_balance: bool = Field(True, description="every class is seen equally often, however many pictures it has")
    grow_from: str | None = Field(
        None, description="a class adapter that learns these further classes; all else in it stays as it is, to the bit"
    )

    @model_validator(mode="after")
    def _of_classes(self) -> Self:
        for name in OWN:
            if not self.classes and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} ({getattr(self, name)}) is of classes=true")
        return self
