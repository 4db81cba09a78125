"""How long, how exactly, on what."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.config.fields import Section, show


class RunSettings(Section):
    """How long, how exactly, on what."""

    preset: Literal["style", "subject", "class", "edit"] | None = show(
        None, "settings for a job, where you give none: docs/presets.md"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random: order, times, noise, dropout, LoRA's start")
    steps: int = Field(500, ge=1, description="optimizer steps")
    epochs: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="times that each picture is seen, in place of steps"
    )
    batch_size: int = Field(8, ge=1, description="pictures an optimizer step, over all processes")
    accumulation: int = Field(
        1, ge=1, description="pieces that a process cuts its share of a batch into, to save memory"
    )
    precision: Literal["no", "fp16", "bf16"] = Field("no", description="mixed precision (Accelerate); LoRA stays fp32")
    base_precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="what the frozen base is held in; auto: as its weights are, as far as precision goes with it",
    )
    quantize: Literal["none", "nf4-bnb", "int8-bnb", "int8-torchao", "int8-quanto"] = Field(
        "none", description="hold the frozen denoiser's linear layers in few bits, by the package behind the dash"
    )
    save_precision: Literal["fp32", "fp16", "bf16"] = show("fp32", "of the adapter's file")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    offload_weights: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the frozen denoiser's layers that wait in the machine's memory, off the GPU",
    )
    offload_activations: bool = Field(
        False,
        description="what the backward pass keeps waits in the machine's memory; best with gradient_checkpointing",
    )
    shard: bool = Field(
        False,
        description="cut the frozen denoiser up over the processes (FSDP2): each holds a share of it",
    )
    attention: str = Field("auto", description="diffusers' name of an attention backend; auto: its own choice")
    compile: bool = Field(
        False, description="torch.compile of the denoiser's repeated blocks: slow start, faster steps"
    )
    memory: Literal["as_set", "fit"] = show(
        "as_set",
        "fit: tries accumulation, gradient_checkpointing, offloading and fewer bits, and takes the fastest that fits",
    )
    memory_limit: float | None = show(None, "of memory=fit, GiB; none: what is free", gt=0, allow_inf_nan=False)
    unload: bool = show(True, "text encoders and VAE leave the GPU when everything is cached, and return for previews")

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: object) -> object:
        """Said twice at once, it would be unclear which counts."""
        if isinstance(values, dict) and values.get("epochs") is not None and values.get("steps") is not None:
            raise ValueError(
                f"steps ({values['steps']}) and epochs ({values['epochs']}) say the same: give one of them"
            )
        return values

    @model_validator(mode="after")
    def _pieces(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        return self

    @model_validator(mode="after")
    def _limit(self) -> Self:
        if self.memory_limit is not None and self.memory != "fit":
            raise ValueError(f"memory_limit ({self.memory_limit}) is of memory=fit")
        return self

    @model_validator(mode="after")
    def _offloading(self) -> Self:
        for name in ("offload_weights", "offload_activations"):
            if self.compile and getattr(self, name):
                raise ValueError(f"{name} does not go with compile, which keeps what it wants: leave one of them out")
        if self.offload_weights and self.quantize != "none":
            raise ValueError(f"offload_weights does not go with quantize={self.quantize}: leave one of them out")
        return self

    @model_validator(mode="after")
    def _sharding(self) -> Self:
        others = {"quantize": "none", "offload_weights": 0.0, "compile": False, "memory": "as_set"}
        for name, plain in others.items() if self.shard else ():
            if (value := getattr(self, name)) != plain:
                raise ValueError(f"shard does not go with {name} ({value}): leave one of them out")
        return self

    @model_validator(mode="after")
    def _precisions(self) -> Self:
        """A base in half precision is multiplied in that precision; fp16 needs the gradient scaler that comes with it."""
        base, mixed = self.base_precision, self.precision
        if base not in ("auto", "fp32", mixed) and (base, mixed) != ("bf16", "no"):
            raise ValueError(f"base_precision={base} goes with precision={base}, not with precision={mixed}")
        return self


def steps_of(epochs: float, rows: float, batch: int) -> int:
    """Steps until so many epochs of so many rows are over; batches go on from one epoch into the next. Rounded up."""
    return math.ceil(Fraction(str(epochs)) * Fraction(str(round(rows, 9))) / batch)
