"""Optimizer and learning rate."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from adapt.config.fields import Finite, Section
from adapt.errors import did_you_mean

BY_SETTINGS = {
    **{"lr": "learning_rate", "learning_rate": "learning_rate", "weight_decay": "weight_decay"},
    **{"warmup_steps": "warmup", "params": "targets"},
}
"""Arguments of optimizers that have settings of their own, so that each is said in one place."""
ADAM = {"betas": "adam_beta1 and adam_beta2", "eps": "adam_epsilon"}
"""Likewise, of the optimizers that are Adam with something changed."""
ADAM_LIKE = ("adamw", "adamw8bit", "prodigy", "schedulefree")
OPTIMIZERS = ("adamw", "adafactor", "prodigy", "schedulefree", "lion", "muon", "adamw8bit", "lion8bit")
"""Optimizers with a name of their own here; any other is named by its class, `package.module.Class`."""
ALSO_CALLED = {"adamwschedulefree": "schedulefree", "schedule_free": "schedulefree", "adam8bit": "adamw8bit"}
OWN_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "prodigy": {"learning_rate": 1.0},
    "schedulefree": {"ema": 0.0},
    "lion": {"learning_rate": 2e-5},
    "lion8bit": {"learning_rate": 2e-5},
}
"""What stands for a setting that is not given, where an optimizer wants something else than AdamW."""
FUSABLE = ("adamw", "adafactor", "lion", "adamw8bit", "lion8bit")
"""Optimizers whose step of a parameter depends on no other."""
LOWEST_PRODIGY = 0.01


class LearningSettings(Section):
    """Optimizer and learning rate."""

    optimizer: str = Field("adamw", description=f"{', '.join(OPTIMIZERS)}, or a class by its dotted name")
    optimizer_args: dict[str, Any] = Field({}, description="more arguments of the optimizer, by its own names")
    learning_rate: float = Field(
        1e-4, gt=0, le=10, allow_inf_nan=False, description="at its highest; not given: 1 for prodigy, 2e-5 for lion"
    )
    schedule: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex"
    ] = Field("constant_with_warmup", description="course of the learning rate (diffusers' names, and rex)")
    schedule_cycles: int = Field(1, ge=1, description="of cosine_with_restarts")
    schedule_power: float = Field(1.0, gt=0, le=10, description="of polynomial")
    warmup: int = Field(20, ge=0, description="steps until the learning rate is reached")
    weight_decay: Finite = Field(0.01, ge=0, description="of the optimizer, where it has one")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description=f"of {', '.join(ADAM_LIKE)}")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description=f"of {', '.join(ADAM_LIKE)}")
    adam_epsilon: Finite = Field(1e-8, gt=0, description=f"of {', '.join(ADAM_LIKE)}")
    max_grad_norm: Finite | None = Field(
        1.0, gt=0, description="gradients longer than this are shortened to it; None (fused_backward): they are not"
    )
    fused_backward: bool = Field(
        False, description="apply each gradient in the backward pass and let it go; they are not shortened then"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="when loss or gradient is not finite: stop, or leave that step out and go on"
    )

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: str) -> str:
        if "." in value:
            if all(part.isidentifier() for part in value.split(".")):
                return value
            raise ValueError("a class is named package.module.Class")
        name = value.lower()
        name = ALSO_CALLED.get(name, name)
        if name not in OPTIMIZERS:
            near = did_you_mean(name, list(OPTIMIZERS))
            hint = f"did you mean {near}? " if near else ""
            raise ValueError(f"{hint}known are {', '.join(OPTIMIZERS)}, and any class as package.module.Class")
        return name

    @field_validator("optimizer_args", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """kohya's `["d_coef=2.0", "betas=0.9,0.99"]` as a mapping."""
        if value is None:
            return {}
        if not isinstance(value, list | tuple):
            return value
        pairs = [str(word).partition("=") for word in value]
        if not all(sign for _, sign, _ in pairs):
            raise ValueError("arguments are written name=value")
        return {name.strip(): _literal(text.strip()) for name, _, text in pairs}

    @model_validator(mode="after")
    def _arguments(self) -> Self:
        """What has a setting of its own is not said twice."""
        taken = {**BY_SETTINGS, **(ADAM if self.optimizer in ADAM_LIKE else {})}
        for name in self.optimizer_args:
            if name in taken:
                raise ValueError(f"optimizer_args: {name} is said by {taken[name]}")
        if self.optimizer not in ADAM_LIKE:
            for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of {', '.join(ADAM_LIKE)}; others take theirs in optimizer_args")
        return self

    @model_validator(mode="after")
    def _fused(self) -> Self:
        if not self.fused_backward:
            return self
        if self.max_grad_norm is not None:
            raise ValueError(
                f"fused_backward: max_grad_norm ({self.max_grad_norm:g}) needs all gradients at once: max_grad_norm=null"
            )
        if self.optimizer not in FUSABLE:
            raise ValueError(
                f"fused_backward: {self.optimizer} looks at all parameters; it goes with {', '.join(FUSABLE)}"
            )
        if self.on_nonfinite == "skip":
            raise ValueError("fused_backward: what is applied cannot be left out again: on_nonfinite=stop")
        return self

    @model_validator(mode="after")
    def _course(self) -> Self:
        """A schedule's own settings go with that schedule."""
        if self.schedule_cycles != 1 and self.schedule != "cosine_with_restarts":
            raise ValueError("schedule_cycles is of schedule=cosine_with_restarts")
        if self.schedule_power != 1 and self.schedule != "polynomial":
            raise ValueError("schedule_power is of schedule=polynomial")
        return self

    @model_validator(mode="after")
    def _of_prodigy(self) -> Self:
        if self.optimizer != "prodigy":
            return self
        if self.learning_rate < LOWEST_PRODIGY:
            raise ValueError(
                f"learning_rate: prodigy finds the rate itself and takes this as a factor: give 1 (given {self.learning_rate:g})"
            )
        if self.warms_up and self.optimizer_args.get("safeguard_warmup") is False:
            raise ValueError(
                "optimizer_args: without safeguard_warmup, prodigy misjudges the rate while it warms up: leave it out"
            )
        if self.optimizer_args.get("fsdp_in_use"):
            raise ValueError("optimizer_args: fsdp_in_use is for sharded parameters, and these are whole")
        return self

    @model_validator(mode="after")
    def _of_others(self) -> Self:
        if self.optimizer == "schedulefree" and not self.schedule.startswith("constant"):
            raise ValueError(
                f"schedule: schedulefree averages in place of a schedule: constant or constant_with_warmup, not {self.schedule}"
            )
        own_rate = [name for name in ("relative_step", "warmup_init") if self.optimizer_args.get(name)]
        if self.optimizer == "adafactor" and own_rate:
            raise ValueError(
                f"optimizer_args: {own_rate[0]} makes adafactor ignore learning_rate, schedule and warmup: leave it out"
            )
        return self

    @property
    def warms_up(self) -> bool:
        """Whether the learning rate begins low."""
        return self.warmup > 0 and self.schedule != "constant"


def own_defaults(values: Any) -> dict[str, Any]:
    """Settings that are not given and whose default the chosen optimizer, or a step in the backward pass, changes."""
    if not isinstance(values, Mapping):
        return {}
    given = values.get("optimizer")
    name = given.lower() if isinstance(given, str) else ""
    fused = {"max_grad_norm": None} if values.get("fused_backward") is True else {}
    defaults = {**OWN_DEFAULTS.get(ALSO_CALLED.get(name, name), {}), **fused}
    return {name: value for name, value in defaults.items() if name not in values}


def _literal(text: str) -> Any:
    """A Python literal (`0.9,0.99`, `True`), else the text; runs nothing."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
