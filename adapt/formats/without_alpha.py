"""Dialects that say no alpha: readers take a factor of 1, so that the strength goes into B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.layer import Layer
from adapt.formats.lora_weights import LoraWeights, Pair
from adapt.formats.names.families import FAMILIES, Family

if TYPE_CHECKING:
    from torch import Tensor


def tensors_of(layers: Mapping[str, Layer], down: str, up: str) -> dict[str, Tensor]:
    """By layer and tensor; B as it is, bit for bit, where alpha is the rank."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        assert isinstance(layer, Pair), "judged by require_lora"
        tensors[f"{name}.{down}.weight"] = layer.down
        tensors[f"{name}.{up}.weight"] = layer.up if layer.scale == 1 else layer.up.float() * layer.scale
    return tensors


def require_lora(weights: LoraWeights, family: Family, wanted: str, whose: str) -> None:
    """Raises `AdapterError` for what such a dialect cannot say."""
    if weights.kinds != {"lora"}:
        raise AdapterError(
            f"{whose} format holds LoRA only",
            given=", ".join(sorted(weights.kinds)),
            next="export the nearest plain LoRA: --nearest RANK",
        )
    if family.name != wanted:
        raise AdapterError(f"{whose} format is for another family", given=family.title, allowed=FAMILIES[wanted].title)
    if strange := set(weights.modules) - {family.component}:
        raise AdapterError(
            f"{whose} format has no name for a component of this adapter", given=", ".join(sorted(strange))
        )
