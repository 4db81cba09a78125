"""Times, noise, weights and loss."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.config.fields import Finite, Section, Share


class ObjectiveSettings(Section):
    """Times, noise, weights and loss."""

    time_sampling: Literal["uniform", "logit_normal", "mode"] | None = Field(
        None, description="density of training times; None: the family's"
    )
    time_low: Share = Field(0.0, description="share of noise from which on to train")
    time_high: Share = Field(1.0, description="share of noise up to which to train")
    anchor_above: Share | None = Field(
        None, description="share of noise above which the base is the teacher, so that layout stays; None: off"
    )
    min_snr_gamma: Finite | None = Field(None, gt=0, description="γ of min-SNR weighting, often 5; None: off")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.time_low >= self.time_high:
            raise ValueError(f"time_low ({self.time_low}) must lie below time_high ({self.time_high})")
        return self
