"""diffusers' names of layers before other names of tensors than peft's.

diffusers' files before 0.20 (`.lora.down.weight`, `.processor.to_q_lora.down.weight`), ai-toolkit's LoKr, OneTrainer's diffusers
export (kohya's tensors and `.alpha`), and files of a single model (`model.save_lora_adapter`), without the component.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.errors import AdapterError
from adapt.formats.diffusers_lora import COMPONENTS, lora_weights
from adapt.formats.encoder_names import in_memory
from adapt.formats.header import HEADER
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.placing import TRANSFORMER_PARTS, UNET_PARTS, Place, at, in_diffusers_names
from adapt.formats.without_alpha import require_lora, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

KEY = re.compile(rf"^({'|'.join(COMPONENTS)})\.")
BARE = re.compile(rf"^({'|'.join((*UNET_PARTS, *TRANSFORMER_PARTS))})\.")


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""

    def place(name: str) -> Place | None:
        module = re.sub(r"\.processor\.(to_[qkv]|to_out)_lora$", r".\1", name)
        module = module + ".0" if module.endswith(".to_out") else module
        if found := KEY.match(module):
            return at(found[1], in_memory(found[1], module[found.end() :]))
        return in_diffusers_names(module)

    return place


def read_bare(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraWeights:
    """A file of a single model in peft's names, whose header has peft's configuration without the component too."""
    component = in_diffusers_names(next(iter(tensors))).component
    try:
        config = json.loads(metadata.get(HEADER, "{}"))
        header = {k if k.startswith(f"{component}.") else f"{component}.{k}": v for k, v in config.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"the adapter's {HEADER} is no JSON object", given=path) from error
    named = {f"{component}.{name}": tensor for name, tensor in tensors.items()}
    return lora_weights(path, named, {**metadata, HEADER: json.dumps(header)} if header else metadata)


def said_by_ai_toolkit(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter as ai-toolkit writes it for transformers: diffusers' names, no alpha.

    Raises:
        AdapterError: another kind, another family, or text encoders.
    """
    require_lora(weights, family, "flux" if family.name != "sd3" else "sd3", "ai-toolkit's")
    layers = {f"transformer.{module}": layer for module, layer in weights.modules["transformer"].items()}
    return tensors_of(layers, "lora_A", "lora_B")
