"""XLabs' file for Flux (XLabs-AI/x-flux, `src/flux/modules/layers.py`): LoRA inside attention processors, no alpha.

The picture's side is numbered 1 and the text's 2; single blocks have q, k and v without the MLP beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.names.native import Names, native
from adapt.formats.placing import Place, native_layers
from adapt.formats.without_alpha import require_lora, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

KEY = re.compile(r"^(diffusion_model\.)?(double|single)_blocks\.\d+\.processor\.")
_BLOCK, _SINGLE = "transformer_blocks.{}.attn", "single_transformer_blocks.{}"
NAMES = Names(
    (
        native("double_blocks.{}.processor.qkv_lora1", *(f"{_BLOCK}.to_{x}" for x in "qkv")),
        native("double_blocks.{}.processor.qkv_lora2", *(f"{_BLOCK}.add_{x}_proj" for x in "qkv")),
        native("double_blocks.{}.processor.proj_lora1", f"{_BLOCK}.to_out.0"),
        native("double_blocks.{}.processor.proj_lora2", f"{_BLOCK}.to_add_out"),
        native("single_blocks.{}.processor.qkv_lora", *(f"{_SINGLE}.attn.to_{x}" for x in "qkv")),
        native("single_blocks.{}.processor.proj_lora", f"{_SINGLE}.proj_out"),
    )
)


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""

    def place(name: str) -> Place | None:
        found = NAMES.of_native(name.removeprefix("diffusion_model."))
        return Place("transformer", found) if found else None

    return place


def said(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in these names; LoRA in Flux's attention only.

    Raises:
        AdapterError: another kind, another family, or layers that it has no names for.
    """
    require_lora(weights, family, "flux", "XLabs'")
    layers = native_layers(weights, replace(family, names=NAMES))
    return tensors_of({name: layer for _, name, layer in layers}, "down", "up")
