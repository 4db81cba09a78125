"""What a file's header says of the model that it is for and of its own size: ModelSpec 1.0.1 and kohya's `ss_*` entries, the same
in every dialect. Models are called as kohya-ss/sd-scripts calls them (`library/sai_model_spec.py`), in OMI's files as OneTrainer
does (`resources/sd_model_spec`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adapt.errors import AdapterError
from adapt.formats.described import Description
from adapt.formats.header import carried
from adapt.formats.layer import Layer
from adapt.formats.names.families import BACKBONES, Family, family_of

Modules = Mapping[str, Mapping[str, Layer]]
"""As in `LoraWeights`."""
STABILITY, DIFFUSERS = "https://github.com/Stability-AI/generative-models", "https://github.com/huggingface/diffusers"
BFL, WAN = "https://github.com/black-forest-labs/flux", "https://github.com/Wan-Video/Wan2.1"


@dataclass(frozen=True)
class Model:
    """Attributes:
    version: `ss_base_model_version`; empty: kohya's scripts have no such model.
    architecture: `modelspec.architecture`, before `/lora`.
    code: `modelspec.implementation`.
    omi: the architecture in OMI's files, where that is another.
    network: `ss_network_module` of a LoRA.
    """

    version: str
    architecture: str
    code: str = STABILITY
    omi: str | None = None
    network: str = "networks.lora"


_SD3, _FLUX = "networks.lora_sd3", "networks.lora_flux"
MODELS: Mapping[str, Model] = {
    "sd1": Model("sd_v1", "stable-diffusion-v1"),
    "sd1, v": Model("sd_v1_v", "stable-diffusion-v1"),
    "sd2": Model("sd_v2", "stable-diffusion-v2-512"),
    "sd2, v": Model("sd_v2_v", "stable-diffusion-v2-768-v"),
    "sdxl": Model("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    "sd3": Model("medium", "stable-diffusion-3-medium", omi="stable-diffusion-v3-medium", network=_SD3),
    "sd3, 3.5 medium": Model("5-medium", "stable-diffusion-3-5-medium", omi="stable-diffusion-v3.5", network=_SD3),
    "sd3, 3.5 large": Model("5-large", "stable-diffusion-3-5-large", omi="stable-diffusion-v3.5", network=_SD3),
    "flux": Model("flux1", "flux-1-dev", BFL, "Flux.1-dev", _FLUX),
    "flux, schnell": Model("flux1", "flux-1-schnell", BFL, "Flux.1-schnell", _FLUX),
    "wan": Model("wan", "wan2.1", WAN, network="networks.lora_wan"),  # as musubi-tuner writes it, for 2.2 too
}
"""Family (`names/families.py`), and which of its models where there are several."""
OTHERS: Mapping[str, Model] = {
    "chroma": Model("chroma", "chroma", "https://huggingface.co/lodestones/Chroma", network=_FLUX),
    "lumina2": Model(
        "lumina2", "lumina-2", "https://github.com/Alpha-VLLM/Lumina-Image-2.0", network="networks.lora_lumina"
    ),
}
"""Further families of adapt's backbones that kohya's scripts know. All others are called as adapt calls them."""
NETWORKS: Mapping[str, tuple[str, str]] = {
    "lora": ("networks.lora", "{}"),
    "dora": ("lycoris.kohya", '{"algo": "locon", "dora_wd": "True", "wd_on_output": "True"}'),
    "loha": ("lycoris.kohya", '{"algo": "loha"}'),
    "lokr": ("lycoris.kohya", '{"algo": "lokr"}'),
    "diag-oft": ("lycoris.kohya", '{"algo": "diag-oft"}'),
    "lycoris-boft": ("lycoris.kohya", '{"algo": "boft"}'),
    "glora": ("lycoris.kohya", '{"algo": "glora"}'),
    "ia3": ("lycoris.kohya", '{"algo": "ia3"}'),
}
"""Kind → `ss_network_module`, `ss_network_args`."""


def model_of(family: Family, modules: Modules, told: Description) -> Model:
    """Which of the family's models an adapter was made for: as it says, else as its layers tell."""
    which = told.model or _by_layers(family, modules)
    if family.name in ("sd1", "sd2") and told.objective == "v_prediction":
        which = "v"
    return MODELS.get(f"{family.name}, {which}", MODELS[family.name])


def model_for(modules: Modules, told: Description, backbone: str | None, width: int | None = None) -> Model | None:
    """The same for any family; None where neither the adapter nor its layers say one.

    Args:
        backbone: the family that the adapter says it was made for.
        width: as in `family_of`.
    """
    if backbone and backbone in OTHERS:
        return OTHERS[backbone]
    if backbone in (None, "stable-diffusion", *BACKBONES):
        try:
            return model_of(family_of(modules, width, backbone), modules, told)
        except AdapterError:
            pass  # too small to be one of them: a base of one's own
    return Model("", backbone, DIFFUSERS) if backbone else None


def _by_layers(family: Family, modules: Modules) -> str | None:
    """3.5 medium alone has a second attention, and only 3.5 large more than 24 blocks; without either it is called 3 medium."""
    if family.name != "sd3":
        return None
    layers = modules.get("transformer", {})
    if any(".attn2." in name for name in layers):
        return "3.5 medium"
    blocks = (int(found[1]) for name in layers if (found := re.match(r"transformer_blocks\.(\d+)\.", name)))
    return "3.5 large" if max(blocks, default=0) >= 24 else None


def layers_of(modules: Modules) -> dict[str, Layer]:
    """All layers, by component and name."""
    return {f"{component}.{name}": layer for component, inside in modules.items() for name, layer in inside.items()}


def header(
    layers: Mapping[str, Layer],
    model: Model | None,
    told: Description,
    metadata: Mapping[str, str] | None = None,
    *,
    omi: bool = False,
) -> dict[str, str]:
    """All entries but digests, which are the written file's.

    Args:
        layers: as the file has them.
        metadata: of the file that the adapter came from. What it says of its maker stays, and what it says of itself where adapt
            has not trained it.
        omi: InvokeAI takes a file for OMI's by its architecture's name there and `ot_branch`.
    """
    before, said = carried(metadata or {}), told.header()
    entries = {**before, **said} if told.training else {**said, **before}
    entries |= {"format": "pt", **_size(layers, model)}
    if model is None:
        return entries
    architecture = model.omi or model.architecture if omi else model.architecture
    entries |= {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": model.code,
    }
    if model.version:
        v2 = str(model.version.startswith("sd_v2"))
        entries |= {"ss_v2": v2, "ss_base_model_version": model.version}
    return {**entries, "ot_branch": "omi_format"} if omi else entries


def _size(layers: Mapping[str, Layer], model: Model | None) -> dict[str, str]:
    ranks, alphas = ({getattr(layer, what) for layer in layers.values()} for what in ("rank", "alpha"))
    told = {
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
    }
    kind = next(iter(layers.values())).kind
    if kind in NETWORKS:
        module, told["ss_network_args"] = NETWORKS[kind]
        told["ss_network_module"] = model.network if model and module == "networks.lora" else module
    return told
