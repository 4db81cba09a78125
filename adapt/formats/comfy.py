"""ComfyUI's own names (`comfy/lora.py`), which diffusion-pipe, SimpleTuner (`--lora_format comfyui`) and OneTrainer write too.

Keys `diffusion_model.<the model's own layer>.lora_down.weight` or `.lora_A.weight`, `.alpha`, and LyCORIS's; text encoders
`text_encoders.clip_l.transformer.<transformers' layer>`, likewise `clip_g`, `clip_h`, `t5xxl`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from adapt.formats.encoder_names import in_memory
from adapt.formats.kohya import tensors_of
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family
from adapt.formats.placing import Place, at, denoiser, is_flux, native_layers

if TYPE_CHECKING:
    from torch import Tensor

DENOISER = "diffusion_model."
KEY = re.compile(r"^(diffusion_model|text_encoders)\.")
TEXT = re.compile(r"^text_encoders\.(clip_l|clip_g|clip_h|t5xxl)\.(?:transformer\.)?(.+)$")


def placer(names: Iterable[str]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs."""
    t5 = "text_encoder_2" if is_flux(names) else "text_encoder_3"
    components = {"clip_l": "text_encoder", "clip_h": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": t5}

    def place(name: str) -> Place | None:
        if name.startswith(DENOISER):
            return denoiser(name.removeprefix(DENOISER))
        found = TEXT.match(name)
        component = components[found[1]] if found else ""
        return at(component, in_memory(component, found[2])) if found else None

    return place


def said(weights: LoraWeights, family: Family) -> dict[str, Tensor]:
    """An adapter in these names."""
    layers = {}
    for component, name, layer in native_layers(weights, family):
        encoder = family.comfy_text.get(component)
        layers[f"text_encoders.{encoder}.transformer.{name}" if encoder else DENOISER + name] = layer
    return tensors_of(layers)
