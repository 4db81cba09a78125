"""The settings of a training run: one strict model, flat, made of one section a file.

The same names everywhere: `rank=16` on the command line, `rank: 16` in a file, `TrainSettings(rank=16)` in Python.
"step" is always an optimizer step.
"""

from __future__ import annotations

from typing import Any, Self, get_args

from pydantic import ValidationInfo, field_validator, model_validator

from adapt.config.conditions import ConditionSettings
from adapt.config.data import DataSettings
from adapt.config.distillation import DistillationSettings, distill_clashes, distill_defaults
from adapt.config.fields import COURSE, Section
from adapt.config.learning import LearningSettings, own_defaults
from adapt.config.network import FROM_DATA, SPLITS, NetworkSettings
from adapt.config.objective import ObjectiveSettings
from adapt.config.presets import preset_defaults
from adapt.config.run import RunSettings
from adapt.config.slider import SliderSettings, slider_clashes, slider_defaults
from adapt.config.text_encoder import TextEncoderSettings
from adapt.config.tokens import TokenSettings
from adapt.config.watching import WatchingSettings


class TrainSettings(
    RunSettings,
    DataSettings,
    NetworkSettings,
    TextEncoderSettings,
    TokenSettings,
    ConditionSettings,
    LearningSettings,
    ObjectiveSettings,
    DistillationSettings,
    SliderSettings,
    WatchingSettings,
):
    """Everything that a training run can be told."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_optimizer_wants(cls, values: Any) -> Any:
        """Presets and some optimizers have defaults of their own; what is given goes before them."""
        if not isinstance(values, dict):
            return values
        own = {**preset_defaults(values), **own_defaults(values), **distill_defaults(values)}
        return {**own, **slider_defaults(values), **values}

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        """Schedule-free keeps the average that it is judged by itself."""
        if self.optimizer == "schedulefree" and self.ema:
            raise ValueError(f"ema ({self.ema}): schedulefree averages the weights itself: leave ema out, or set ema=0")
        if self.optimizer == "schedulefree" and self.max_norm:
            raise ValueError(
                f"max_norm ({self.max_norm}): schedulefree's own average would not be shortened: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _whole_base(self) -> Self:
        """PiSSA splits the base's weights; in half precision the parts do not add up again."""
        if self.init in SPLITS and self.base_precision not in ("auto", "fp32"):
            raise ValueError(
                f"init={self.init} splits the base's weights: base_precision=fp32, not {self.base_precision}"
            )
        if self.init in FROM_DATA and self.compile:
            raise ValueError(f"init={self.init} looks into layers, which compiled ones do not allow: leave compile out")
        return self

    @model_validator(mode="after")
    def _few_bits(self) -> Self:
        """What reads or splits the base's weights cannot do so in few bits."""
        if self.quantize == "none":
            return self
        for name, value in (("kind", self.kind), ("init", self.init)):
            if value not in ("lora", "default", "eva"):
                raise ValueError(
                    f"{name}={value} looks at the base's weights, which quantize={self.quantize} packs away"
                )
        if self.compile:
            raise ValueError(f"compile does not go with quantize={self.quantize}: leave one of them out")
        return self

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        """What is learned from a teacher is not learned from something else beside."""
        if faults := [*distill_clashes(self), *slider_clashes(self)]:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _compiled(self) -> Self:
        """Dropout masks come from the Plan, one row at a time, which torch.compile would trace anew at every step."""
        if self.compile and self.kind == "tlora":
            raise ValueError("compile does not go with kind=tlora, whose components change with the time: leave it out")
        for name in ("dropout", "rank_dropout", "module_dropout"):
            if self.compile and getattr(self, name):
                raise ValueError(f"compile does not go with LoRA {name} ({getattr(self, name)}): set one of them off")
        return self

    @model_validator(mode="after")
    def _dropouts(self) -> Self:
        """What a row goes without, excludes each other."""
        together = sum(self.dropouts.values())
        if self.dropped_parts and together > 1:
            raise ValueError(
                f"the dropouts of caption, class, image, control, source and joint_dropout add up to more than 1 ({together:g})"
            )
        return self

    @model_validator(mode="after")
    def _grows(self) -> Self:
        """Further classes are all that is learned: the network is the grown adapter's."""
        if self.grow_from is None:
            return self
        others = (
            "init_from",
            "assistant",
            "train_text_encoder",
            "new_tokens",
            "image_prompts",
            "control",
            "prior_prompt",
        )
        for name in others:
            if getattr(self, name) not in (None, False, "none", {}):
                raise ValueError(f"{name} does not go with grow_from, which teaches nothing but classes: leave it out")
        for name, value, plain in (("init", self.init, "default"), ("quantize", self.quantize, "none")):
            if value != plain:
                raise ValueError(
                    f"{name}={value} does not go with grow_from, whose layers are added to the base: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _in_pieces(self) -> Self:
        """What is applied in the backward pass cannot wait for other pieces of the batch, or for what is judged after it."""
        if not self.fused_backward:
            return self
        for name, value, plain in (
            ("accumulation", self.accumulation, 1),
            ("precision", "no" if self.precision == "bf16" else self.precision, "no"),
            ("train_text_encoder", self.train_text_encoder, False),
            ("new_tokens", self.new_tokens, {}),
        ):
            if value != plain:
                raise ValueError(f"fused_backward does not go with {name} ({value}): leave one of them out")
        return self

    @model_validator(mode="after")
    def _away(self) -> Self:
        """Kinds and starts that compute with the base's weights do so where these are."""
        if self.shard and (self.kind not in ("lora", "vera", "tlora") or self.init != "default"):
            what = f"kind={self.kind}" if self.init == "default" else f"init={self.init}"
            raise ValueError(f"shard does not go with {what}, which looks at the base's weights")
        for name in ("grow_from", "distill_adapter") if self.shard else ():
            if value := getattr(self, name):
                raise ValueError(f"shard does not go with {name} ({value}), which is put into the base's weights")
        if self.offload_weights and (self.kind not in ("lora", "vera", "tlora") or self.init in SPLITS):
            what = f"kind={self.kind}" if self.init not in SPLITS else f"init={self.init}"
            raise ValueError(f"offload_weights does not go with {what}, which computes with the base's weights")
        return self

    @model_validator(mode="after")
    def _something_to_keep(self) -> Self:
        if self.keep == "ema" and not self.ema:
            raise ValueError("keep (ema): there is no moving average with ema=0: leave keep out, or set ema=0.98")
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """`flip: true` is no probability of 1; `steps: 1e3`, which YAML 1.1 reads as text, is a whole number, and a bare
        `no`, which it reads as false, a word where there is one."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is False and "no" in get_args(annotation):
            return "no"
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("takes a value, not true or false")
        whole = int in (annotation, *get_args(annotation))
        return number(value) if whole else value

    @property
    def dropouts(self) -> dict[tuple[str, ...], float]:
        """Which parts of the condition a row goes without, and how often."""
        own = {"class": self.class_dropout, "image": self.image_prompt_dropout, "control": self.control_dropout}
        own["source"] = self.source_dropout or 0.0
        found: dict[tuple[str, ...], float] = {("caption",): self.caption_dropout}
        found |= {(part,): own[part] for part in self.dropped_parts}
        return {**found, **self.joint_dropouts}

    @property
    def hears_itself(self) -> bool:
        """Whether what the denoiser is told changes while it is trained: captions are then encoded at every step."""
        return bool(self.train_text_encoder or self.new_tokens)

    def course(self) -> dict[str, Any]:
        """The settings that decide what is learned."""
        return {name: value for name, value in self.model_dump(mode="json").items() if kind(name) == COURSE}


SECTIONS: tuple[type[Section], ...] = TrainSettings.__bases__


def kind(name: str) -> str:
    """`course` or `show`."""
    extra = TrainSettings.model_fields[name].json_schema_extra
    return str(extra["kind"]) if isinstance(extra, dict) else COURSE


def number(value: Any) -> Any:
    """Text that is a number, as one; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
