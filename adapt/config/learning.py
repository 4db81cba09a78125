"""Optimizer and learning rate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.config.fields import Finite, Section


class LearningSettings(Section):
    """Optimizer and learning rate."""

    learning_rate: float = Field(1e-4, gt=0, le=10, allow_inf_nan=False, description="of AdamW, at its highest")
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"] = (
        Field("constant_with_warmup", description="course of the learning rate (diffusers' names)")
    )
    warmup: int = Field(20, ge=0, description="steps until the learning rate is reached")
    weight_decay: Finite = Field(0.01, ge=0, description="of AdamW")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="of AdamW")
    adam_epsilon: Finite = Field(1e-8, gt=0, description="of AdamW")
    max_grad_norm: Finite = Field(1.0, gt=0, description="gradients longer than this are shortened to it")
