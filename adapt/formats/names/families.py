"""The models whose layers other programs have names for, and how an adapter's layers tell which one it was made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adapt.errors import AdapterError
from adapt.formats.layer import Layer
from adapt.formats.names.native import Names
from adapt.formats.names.transformers import FLUX, SD3
from adapt.formats.names.unet import SD_UNET, SDXL_UNET
from adapt.formats.names.wan import WAN


@dataclass(frozen=True)
class Family:
    """Attributes:
    name: `sd1`, `sd2`, `sdxl`, `sd3`, `flux` or `wan`.
    title: for people.
    component: diffusers' name of the denoiser.
    names: the model's own names of the denoiser's layers.
    text: component of each text encoder → kohya's prefix.
    comfy_text: component of each text encoder → ComfyUI's name.
    """

    name: str
    title: str
    component: str
    names: Names
    text: Mapping[str, str]
    comfy_text: Mapping[str, str]


_TWO = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
_CLIPS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("sd1", "Stable Diffusion 1.x", "unet", SD_UNET, {"text_encoder": "lora_te"}, {"text_encoder": "clip_l"}),
        Family("sd2", "Stable Diffusion 2.x", "unet", SD_UNET, {"text_encoder": "lora_te"}, {"text_encoder": "clip_h"}),
        Family("sdxl", "Stable Diffusion XL", "unet", SDXL_UNET, _TWO, _CLIPS),
        Family(
            "sd3",
            "Stable Diffusion 3",
            "transformer",
            SD3,
            {**_TWO, "text_encoder_3": "lora_te3"},
            {**_CLIPS, "text_encoder_3": "t5xxl"},
        ),
        Family(
            "flux",
            "Flux.1",
            "transformer",
            FLUX,
            {"text_encoder": "lora_te1", "text_encoder_2": "lora_te3"},
            {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
        ),
        Family("wan", "Wan 2.1, 2.2", "transformer", WAN, {}, {}),
    )
}
WIDTHS: Mapping[int, str] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text that a UNet's cross-attention takes → family."""


BACKBONES: Mapping[str, str] = {
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
    "flux": "flux",
    "wan": "wan",
}
"""Families of adapt's backbones that are one of these whatever their size; 1.x and 2.x are told by the width of the text."""


def family_of(
    modules: Mapping[str, Mapping[str, Layer]], width: int | None = None, backbone: str | None = None
) -> Family:
    """The family that an adapter's layers belong to, by their names and shapes.

    Args:
        modules: as in `LoraWeights`.
        backbone: the family that the adapter says it was made for.
        width: of the text that the base's cross-attention takes, where it is known; else as the layers say.

    Raises:
        AdapterError: none that other programs have names for, or one that the layers cannot tell.
    """
    if known := BACKBONES.get(backbone or ""):
        return FAMILIES[known]
    if width is not None:
        return _of_width({width})
    if layers := modules.get("transformer") or modules.get("transformer_2"):
        return _transformer(layers)
    if "unet" in modules:
        return _unet(modules["unet"])
    if "text_encoder_2" in modules:
        return FAMILIES["sdxl"]
    return FAMILIES["sd1"]


def _transformer(layers: Mapping[str, Layer]) -> Family:
    if any(name.startswith("single_transformer_blocks.") for name in layers):
        return FAMILIES["flux"]
    if any(re.match(r"blocks\.\d+\.(attn[12]|ffn)\.", name) for name in layers):
        return FAMILIES["wan"]
    fitting = [f for f in (FAMILIES["flux"], FAMILIES["sd3"]) if all(f.names.of_module(name) for name in layers)]
    if not fitting:
        unknown = next(name for name in layers if not FAMILIES["flux"].names.of_module(name))
        raise AdapterError("other programs have no name for a layer of this adapter", given=unknown)
    if len(fitting) == 1:
        return fitting[0]
    # the blocks with text and picture are called alike; Flux's are 3072 wide, and no Stable Diffusion 3's
    named = ((layer, name.endswith(("attn.to_q", "attn.to_k"))) for name, layer in layers.items())
    width = next((max(layer.size) for layer, told in named if told), None)  # a rotation says its outputs only
    return FAMILIES["sd3"] if width in (1536, 2432) else FAMILIES["flux"]


def _unet(layers: Mapping[str, Layer]) -> Family:
    if widths := {layer.size[1] for name, layer in layers.items() if re.search(r"attn2\.to_[kv]$", name)} - {0}:
        return _of_width(widths)
    if any(re.search(r"^add_embedding|transformer_blocks\.[1-9]", name) for name in layers):
        return FAMILIES["sdxl"]
    if any(re.match(r"down_blocks\.(0\.attentions|3)|up_blocks\.3", name) for name in layers):
        return FAMILIES["sd1"]
    return _of_width(set())


def _of_width(widths: set[int]) -> Family:
    if len(widths) != 1 or not widths <= set(WIDTHS):
        raise AdapterError(
            "no program that reads this format has a base of this kind",
            given=f"cross-attention on text of width {', '.join(map(str, sorted(widths))) or 'none'}",
            allowed="768 (Stable Diffusion 1.x), 1024 (2.x) or 2048 (XL)",
        )
    return FAMILIES[WIDTHS[widths.pop()]]
