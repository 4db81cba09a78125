"""Black Forest Labs' own file (black-forest-labs/flux, control LoRA): the model's names with nothing before them, peft's names of
the tensors, no alpha: the factor is 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.names.transformers import FLUX
from adapt.formats.placing import Place, native_layers
from adapt.formats.without_alpha import require_lora, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

KEY = re.compile(r"^((double|single)_blocks\.\d+|(img|txt|time|vector|guidance)_in|final_layer)\.")


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""

    def place(name: str) -> Place | None:
        found = FLUX.of_native(name)
        return Place("transformer", found) if found else None

    return place


def said(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in these names; LoRA for Flux only.

    Raises:
        AdapterError: another kind, another family, or text encoders.
    """
    require_lora(weights, family, "flux", "Black Forest Labs'")
    return tensors_of({name: layer for _, name, layer in native_layers(weights, family)}, "lora_A", "lora_B")
