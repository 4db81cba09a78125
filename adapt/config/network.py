"""What is trained: kind, size and place of the adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from adapt.config.fields import Finite, Section


def _no_truth(value: Any) -> Any:
    """YAML's `yes` is no 1."""
    if isinstance(value, bool):
        raise ValueError("takes a number, not true or false")
    return value


Rank = Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=1024)]
Positive = Annotated[float, BeforeValidator(_no_truth), Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(_no_truth), Field(gt=0, le=10, allow_inf_nan=False)]
PATTERNS = ("rank_pattern", "alpha_pattern", "learning_rate_pattern")
"""Settings by layer: {part of a layer's name, or a regular expression for it: value}; the first that fits counts."""
FACTORS_ONLY = ("loha", "lokr")


class NetworkSettings(Section):
    """What is trained: kind, size and place of the adapter."""

    kind: Literal["lora", "dora", "loha", "lokr"] = Field(
        "lora", description="kind of adapter; see docs/adapter-types.md"
    )
    rank: int = Field(16, ge=1, le=1024, description="r of LoRA")
    alpha: Finite | None = Field(None, gt=0, description="strength of LoRA; None: the rank")
    rslora: bool = Field(False, description="factor alpha / √rank instead of alpha / rank (rank-stabilised)")
    init: Literal["default", "pissa"] = Field(
        "default", description="start: A random and B 0, or pissa: the largest singular values of the base's weights"
    )
    init_from: str | None = Field(None, description="start from this adapter: a folder, or a .safetensors file")
    init_resize: bool = Field(
        False, description="init_from may have another rank, alpha or kind: the nearest LoRA of ours"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    rank_dropout: float = Field(0.0, ge=0, lt=1, description="share of rank components that a picture does without")
    module_dropout: float = Field(0.0, ge=0, lt=1, description="share of layers whose adapter a picture does without")
    max_norm: Finite | None = Field(None, gt=0, description="a layer's ‖ΔW‖ is scaled down to this after each step")
    targets: tuple[str, ...] | None = Field(None, description="ends of layer names; None: the family's")
    conv_rank: int | None = Field(
        None, ge=1, le=1024, description="rank of convolutions larger than 1 × 1; without targets, trains them too"
    )
    conv_alpha: Finite | None = Field(None, gt=0, description="alpha of these convolutions; None: as alpha")
    lokr_factor: int | None = Field(
        None, ge=1, description="LoKr: size of the first factor; None: near the square root"
    )
    rank_pattern: dict[str, Rank] = Field({}, description="rank by layer: {down_blocks.0: 4, to_v: 32}; 0: none there")
    alpha_pattern: dict[str, Positive] = Field({}, description="alpha by layer, likewise")
    learning_rate_pattern: dict[str, Rate] = Field({}, description="learning rate by layer, likewise")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average that is kept as the adapter; 0: off")

    @model_validator(mode="after")
    def _known_patterns(self) -> Self:
        for setting in PATTERNS:
            for pattern in getattr(self, setting):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{setting}: {pattern!r} is no pattern: {error}") from error
        return self

    @model_validator(mode="after")
    def _kind_takes_it(self) -> Self:
        """What the kinds cannot do is refused with its reason."""
        for reason in _clashes(self):
            raise ValueError(reason)
        return self


def _clashes(s: NetworkSettings) -> Iterator[str]:
    if s.kind in FACTORS_ONLY and s.rslora:
        yield f"rslora: {s.kind} takes alpha / rank only"
    if s.kind != "lokr" and s.lokr_factor is not None:
        yield f"lokr_factor is of kind=lokr, not of kind={s.kind}"
    if s.kind == "dora" and s.rank_dropout:
        yield "rank_dropout: DoRA's lengths are those of the whole update; use dropout or module_dropout"
    if s.kind == "dora" and s.max_norm:
        yield "max_norm: DoRA sets the lengths of the weights itself"
    if s.init == "pissa":
        yield from _of_pissa(s)


def _of_pissa(s: NetworkSettings) -> Iterator[str]:
    if s.kind != "lora":
        yield f"init=pissa splits a weight into a LoRA and a rest: kind=lora, not kind={s.kind}"
    if s.init_from is not None:
        yield "init=pissa and init_from are two different starts: give one of them"
    if s.max_norm:
        yield "max_norm: with init=pissa A and B hold a part of the base, and scaling them would scale it"
    parts: Mapping[str, float] = {name: getattr(s, name) for name in ("dropout", "rank_dropout", "module_dropout")}
    for name, share in parts.items():
        if share:
            yield f"{name} ({share}): with init=pissa it would drop a part of the base"
