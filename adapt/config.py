"""The settings of a training run: one strict model, with where each value came from.

Order: command line over file over defaults. The same names everywhere: `rank=16` on the command line, `rank: 16` in a
file, `TrainSettings(rank=16)` in Python. "step" is always an optimizer step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from adapt.errors import SettingsError, did_you_mean

COURSE, SHOW = "course", "show"
"""What a change at resume does: alters what is learned, or only what is written and shown."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _show(default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"kind": SHOW}, **limits)


class TrainSettings(BaseModel):
    """Everything that a training run can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # the run
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random: order, times, noise, dropout, LoRA's start")
    steps: int = Field(500, ge=1, description="optimizer steps")
    batch_size: int = Field(8, ge=1, description="pictures an optimizer step, over all processes")
    accumulation: int = Field(
        1, ge=1, description="pieces that a process cuts its share of a batch into, to save memory"
    )
    precision: Literal["no", "fp16", "bf16"] = Field("no", description="mixed precision (Accelerate); LoRA stays fp32")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")

    # data
    resolution: int | None = Field(None, ge=16, description="side of the square pictures, px; None: the base's own")
    background: str = Field("white", description="what pictures with transparency are laid on")
    flip: Share = Field(0.0, description="probability of mirroring a picture")
    trigger: str | None = Field(None, description="word put before every caption")
    skip_bad: bool = Field(False, description="leave out pictures that cannot be used, instead of stopping")
    validation: str | float | None = Field(
        None, description="held-out pictures: a folder, or a fraction of the data; None: none"
    )

    # the adapter
    rank: int = Field(16, ge=1, le=1024, description="r of LoRA")
    alpha: Finite | None = Field(None, gt=0, description="strength of LoRA; None: the rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    targets: tuple[str, ...] | None = Field(None, description="ends of layer names; None: the family's")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average that is kept as the adapter; 0: off")

    # learning
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
    min_snr_gamma: Finite | None = Field(None, gt=0, description="γ of min-SNR weighting, often 5; None: off")
    caption_dropout: Share = Field(0.1, description="share of captions replaced by the empty one, for guidance")

    # times
    time_sampling: Literal["uniform", "logit_normal", "mode"] | None = Field(
        None, description="density of training times; None: the family's"
    )
    time_low: Share = Field(0.0, description="share of noise from which on to train")
    time_high: Share = Field(1.0, description="share of noise up to which to train")
    anchor_above: Share | None = Field(
        None, description="share of noise above which the base is the teacher, so that layout stays; None: off"
    )

    # what is written and shown
    save_every: int = _show(100, "steps between checkpoints", ge=1)
    validate_every: int = _show(50, "steps between measurements of the held-out loss", ge=1)
    validation_times: int = Field(8, ge=1, description="times at which every held-out picture is measured")
    preview_every: int = _show(200, "steps between previews", ge=1)
    previews: tuple[str, ...] = _show((), "prompts drawn as previews and samples; none: the first captions")
    guidance_scale: Finite | None = _show(None, "of previews and samples; None: the family's", ge=1)
    sampling_steps: int | None = _show(None, "of previews and samples; None: the family's", ge=1)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """`flip: true` is no probability of 1; `steps: 1e3`, which YAML 1.1 reads as text, is a whole number."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("takes a value, not true or false")
        whole = int in (annotation, *get_args(annotation))
        return _number(value) if whole else value

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

    @model_validator(mode="after")
    def _agree(self) -> TrainSettings:
        if self.time_low >= self.time_high:
            raise ValueError(f"time_low ({self.time_low}) must lie below time_high ({self.time_high})")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        return self

    def course(self) -> dict[str, Any]:
        """The settings that decide what is learned."""
        return {name: value for name, value in self.model_dump(mode="json").items() if kind(name) == COURSE}


def kind(name: str) -> str:
    """`course` or `show`."""
    extra = TrainSettings.model_fields[name].json_schema_extra
    return str(extra["kind"]) if isinstance(extra, dict) else COURSE


OTHER_NAMES = {
    **{"train_batch_size": "batch_size", "max_train_steps": "steps", "gradient_accumulation_steps": "accumulation"},
    **{"network_dim": "rank", "lora_rank": "rank", "network_alpha": "alpha", "lora_alpha": "alpha"},
    **{"lora_dropout": "dropout", "network_dropout": "dropout", "lr": "learning_rate", "lr_scheduler": "schedule"},
    **{"lr_warmup_steps": "warmup", "mixed_precision": "precision", "snr_gamma": "min_snr_gamma"},
    **{"caption_dropout_rate": "caption_dropout", "instance_prompt": "trigger", "trigger_word": "trigger"},
    **{"checkpointing_steps": "save_every", "save_every_n_steps": "save_every", "validation_prompt": "previews"},
    **{"sample_prompts": "previews", "random_flip": "flip", "flip_aug": "flip", "target_modules": "targets"},
}
"""What diffusers' scripts, peft and kohya call these settings."""


@dataclass(frozen=True)
class Resolved:
    """Settings and, for each name, `default`, the file or `command line`."""

    settings: TrainSettings
    origins: Mapping[str, str]


def resolve(
    file: Path | None = None, overrides: Sequence[str] = (), stored: Mapping[str, Any] | None = None
) -> Resolved:
    """Settings from a YAML or JSON file and `key=value` words.

    Args:
        stored: the settings of a run that is resumed; they stand where defaults would.

    Raises:
        SettingsError: the file is missing or unreadable; a key is unknown; a value is not allowed. All faults at once.
    """
    values = dict(stored or {})
    origins = {name: "the run" if name in values else "default" for name in TrainSettings.model_fields}
    for origin, given in ((str(file), read_file(file) if file else {}), ("command line", parse_overrides(overrides))):
        require_known(list(given), origin)
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    return Resolved(validate(values), origins)


def read_file(path: Path) -> dict[str, Any]:
    """A YAML (or JSON, which is YAML) file with one mapping."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError("no such settings file", given=path) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(
            "the settings file cannot be read", given=f"{path}: {error}", allowed="YAML or JSON"
        ) from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingsError("the settings file holds no mapping", given=path, allowed="lines such as `rank: 16`")
    return dict(content)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`["rank=8", "previews=[red fox, tulip]"]` → values, read as YAML."""
    import yaml

    values = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise SettingsError("a setting is written key=value", given=word, allowed="for example rank=16")
        try:
            values[name] = yaml.safe_load(text if not text.startswith("#") else f"'{text}'") if text else None
        except (yaml.YAMLError, ValueError):  # an impossible date, say
            values[name] = text
    return values


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def require_known(names: Sequence[str], origin: str = "settings") -> None:
    """Raises `SettingsError` naming every unknown name with the nearest known one."""
    known = list(TrainSettings.model_fields)
    unknown = [str(name) for name in names if name not in known]
    if not unknown:
        return
    hints = {name: OTHER_NAMES.get(name) or did_you_mean(name, known) for name in unknown}
    named = ", ".join(f"{name} (did you mean {hint}?)" if hint else name for name, hint in hints.items())
    raise SettingsError(
        f"unknown {'setting' if len(unknown) == 1 else 'settings'}: {named}",
        given=f"from {origin}",
        next="`adapt train --settings` lists every setting",
    )


def validate(values: Mapping[str, Any]) -> TrainSettings:
    """The model, or one `SettingsError` that names every fault."""
    try:
        return TrainSettings.model_validate(dict(values))
    except ValidationError as error:
        faults = [_fault(e) for e in error.errors()]
        raise SettingsError("; ".join(dict.fromkeys(faults))) from error


def _fault(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    given = f", given {error['input']!r}" if name else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower() + message[1:]}{given}" if name else message
