"""How long, how exactly, on what."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.config.fields import Section


class RunSettings(Section):
    """How long, how exactly, on what."""

    seed: int = Field(0, ge=0, lt=2**63, description="of everything random: order, times, noise, dropout, LoRA's start")
    steps: int = Field(500, ge=1, description="optimizer steps")
    batch_size: int = Field(8, ge=1, description="pictures an optimizer step, over all processes")
    accumulation: int = Field(
        1, ge=1, description="pieces that a process cuts its share of a batch into, to save memory"
    )
    precision: Literal["no", "fp16", "bf16"] = Field("no", description="mixed precision (Accelerate); LoRA stays fp32")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")

    @model_validator(mode="after")
    def _pieces(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        return self
