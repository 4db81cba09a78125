"""Text encoders that are trained beside the denoiser."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.config.fields import Finite, Section

OWN = ("rank", "alpha", "learning_rate", "targets", "stop")
"""Settings of a text encoder that mean nothing while none is trained."""


class TextEncoderSettings(Section):
    """Text encoders that are trained beside the denoiser."""

    train_text_encoder: bool | Literal["all"] | tuple[str, ...] = Field(
        False,
        description="true: those that diffusers' LoRA file holds (CLIP), else the first; all; or names: [text_encoder_2]",
    )
    text_encoder_rank: int | None = Field(None, ge=1, le=1024, description="their rank; None: rank")
    text_encoder_alpha: Finite | None = Field(None, gt=0, description="their alpha; None: alpha, else their rank")
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, le=10, allow_inf_nan=False, description="their learning rate at its highest; None: learning_rate"
    )
    text_encoder_targets: tuple[str, ...] | None = Field(
        None, description="ends of their layers' names; None: the projections of attention"
    )
    text_encoder_stop: float = Field(
        1.0, gt=0, le=1, description="share of the steps after which they stay as they are; 1: trained to the end"
    )

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        """What says how a text encoder is trained goes with one that is."""
        for name in (f"text_encoder_{word}" for word in OWN):
            if not self.train_text_encoder and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} ({getattr(self, name)}) is of train_text_encoder=true")
        return self
