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
ONE_SIZE = ("oft", "boft", "vera")
"""Kinds that are of one size everywhere, have no alpha, and take linear layers only."""
SPLITS = ("pissa", "lora_ga")
"""Starts that take a part out of the base's weights and train that."""
FROM_DATA = ("eva", "lora_ga")
"""Starts that look at pictures."""


class NetworkSettings(Section):
    """What is trained: kind, size and place of the adapter."""

    kind: Literal["lora", "dora", "loha", "lokr", "oft", "boft", "vera", "tlora"] = Field(
        "lora", description="kind of adapter; see docs/adapter-types.md"
    )
    rank: int = Field(16, ge=1, le=1024, description="r of LoRA; of OFT and BOFT: inputs that are rotated together")
    alpha: Finite | None = Field(None, gt=0, description="strength of LoRA; None: the rank")
    rslora: bool = Field(False, description="factor alpha / √rank instead of alpha / rank (rank-stabilised)")
    init: Literal["default", "pissa", "eva", "lora_ga"] = Field(
        "default",
        description="start: default: A random, B 0; pissa: largest singular values of the weights; eva: A as what its inputs "
        "vary in most; lora_ga: largest singular values of the first gradient",
    )
    init_batches: int = Field(4, ge=1, le=1000, description="batches that init=eva and init=lora_ga look at")
    lora_plus_ratio: Finite | None = Field(
        None,
        gt=0,
        le=1000,
        description="LoRA+: learning rate of B, as a multiple of A's (its authors: 16); None: the same",
    )
    init_from: str | None = Field(None, description="start from this adapter: a folder, or a .safetensors file")
    assistant: str | None = Field(
        None,
        min_length=1,
        description="a LoRA that undoes a distillation (Flux.1 schnell, Z-Image Turbo): at work while the adapter is taught, "
        "left out of what is saved and drawn",
    )
    init_resize: bool = Field(
        False, description="init_from may have another rank, alpha or kind: the nearest LoRA of ours"
    )
    experts: Literal["both", "high_noise", "low_noise"] = Field(
        "both", description="of bases with two denoisers (Wan 2.2 14B): which are taught; each learns at its own times"
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
    tlora_min_rank: int | None = Field(
        None, ge=1, le=1024, description="T-LoRA: components that are left in pure noise; None: half the rank"
    )
    boft_factors: int = Field(
        1, ge=1, le=8, description="BOFT: rotations one after another; each reaches twice as far as the one before"
    )
    rank_pattern: dict[str, Rank] = Field({}, description="rank by layer: {down_blocks.0: 4, to_v: 32}; 0: none there")
    alpha_pattern: dict[str, Positive] = Field({}, description="alpha by layer, likewise")
    learning_rate_pattern: dict[str, Rate] = Field({}, description="learning rate by layer, likewise")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average that is kept as the adapter; 0: off")

    @property
    def least_rank(self) -> int:
        """T-LoRA's components in pure noise."""
        return self.tlora_min_rank or max(1, self.rank // 2)

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
    if s.lora_plus_ratio is not None and s.kind in FACTORS_ONLY:
        yield f"lora_plus_ratio is of kind=lora and dora: {s.kind} has no B that starts from 0"
    if s.init_batches != 4 and s.init not in FROM_DATA:
        yield f"init_batches ({s.init_batches}) is of init=eva and init=lora_ga"
    if s.init != "default" and s.init_from is not None:
        yield f"init={s.init} and init_from are two different starts: give one of them"
    if s.kind != "boft" and s.boft_factors != 1:
        yield f"boft_factors is of kind=boft, not of kind={s.kind}"
    if s.init == "eva" and s.kind not in ("lora", "dora"):
        yield f"init=eva is a start of A: kind=lora or dora, not kind={s.kind}"
    if s.kind != "tlora" and s.tlora_min_rank is not None:
        yield f"tlora_min_rank is of kind=tlora, not of kind={s.kind}"
    if s.kind == "tlora":
        yield from _of_tlora(s)
    if s.kind in ONE_SIZE:
        yield from _of_one_size(s)
    if s.init in SPLITS:
        yield from _of_splits(s)


def _of_one_size(s: NetworkSettings) -> Iterator[str]:
    turns = s.kind != "vera"
    if turns and s.rank < 2:
        yield f"rank: {s.kind.upper()} rotates blocks of 2 inputs or more"
    if any(s.rank_pattern.values()):
        what = "blocks are" if turns else "the matrices that layers share are"
        yield f"rank_pattern: with kind={s.kind} {what} the same everywhere; 0 leaves a layer out"
    others = ("alpha", "rslora", "rank_dropout", "max_norm", "conv_rank", "conv_alpha", "alpha_pattern", "lora_plus_ratio",
              "init_from", *(("dropout", "module_dropout") if turns else ()))  # fmt: skip
    what = f"a rotation (kind={s.kind})" if turns else "two vectors between fixed matrices (kind=vera)"
    for name in others:
        if getattr(s, name):
            yield f"{name}: {what} has none; leave it out"


def _of_tlora(s: NetworkSettings) -> Iterator[str]:
    if s.least_rank > s.rank:
        yield f"tlora_min_rank ({s.tlora_min_rank}): the rank is {s.rank}, and noise leaves fewer components, not more"
    if s.rank_dropout:
        yield "rank_dropout: T-LoRA's components go by the time; use dropout or module_dropout"
    if s.init_from is not None:
        yield "init_from: a T-LoRA starts with A at right angles; leave it out"


def _of_splits(s: NetworkSettings) -> Iterator[str]:
    if s.kind != "lora":
        yield f"init={s.init} splits a weight into a LoRA and a rest: kind=lora, not kind={s.kind}"
    if s.max_norm:
        yield f"max_norm: with init={s.init} A and B hold a part of the base, and scaling them would scale it"
    parts: Mapping[str, float] = {name: getattr(s, name) for name in ("dropout", "rank_dropout", "module_dropout")}
    for name, share in parts.items():
        if share:
            yield f"{name} ({share}): with init={s.init} it would drop a part of the base"
