"""kohya's LoRA file, which ComfyUI, A1111, Forge and InvokeAI read: here for Stable Diffusion 1.x and 2.x.

Layers of the text encoder are `lora_te_text_model_encoder_layers_…`.

Keys `lora_unet_<module with _ for .>.lora_down.weight` (r, in), `.lora_up.weight` (out, r) and `.alpha`, a scalar; ΔW is
alpha / r · up @ down. LyCORIS's kinds likewise: `.hada_w1_a` …, `.lokr_w1` …, and DoRA's lengths as `.dora_scale`.
The base is told by the width of the text that cross-attention takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.described import Description
from adapt.formats.diffusers_lora import open_tensors
from adapt.formats.encoder_names import by_diffusers, in_files, in_memory
from adapt.formats.header import hashed
from adapt.formats.kinds import layer_of, tensor_names
from adapt.formats.layer import KOHYA, Layer
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights

if TYPE_CHECKING:
    from torch import Tensor

COMPONENT, PREFIX, ENCODER = "unet", "lora_unet_", "text_encoder"
PREFIXES = {COMPONENT: PREFIX, ENCODER: "lora_te_"}
KEY = re.compile(
    rf"^({'|'.join(PREFIXES.values())})(.+)\.({'|'.join(map(re.escape, (*tensor_names(KOHYA), 'alpha')))})$"
)
COMPOUNDS = (
    *(
        "down_blocks",
        "up_blocks",
        "mid_block",
        "transformer_blocks",
        "to_q",
        "to_k",
        "to_v",
        "to_out",
        "proj_in",
        "proj_out",
    ),
    *(
        "time_emb_proj",
        "time_embedding",
        "linear_1",
        "linear_2",
        "conv_shortcut",
        "conv_in",
        "conv_out",
        "conv_norm_out",
    ),
)
"""Parts of diffusers' module names in which the underscore is no dot."""
OF_ENCODERS = ("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj")
"""Likewise, of CLIP's."""
BASES = {768: ("sd_v1", "stable-diffusion-v1/lora"), 1024: ("sd_v2", "stable-diffusion-v2-512/lora")}
"""Width of the text → `ss_base_model_version`, `modelspec.architecture`."""
NETWORKS = {
    "lora": ("networks.lora", "{}"),
    "dora": ("lycoris.kohya", '{"algo": "locon", "dora_wd": "True", "wd_on_output": "True"}'),
    "loha": ("lycoris.kohya", '{"algo": "loha"}'),
    "lokr": ("lycoris.kohya", '{"algo": "lokr"}'),
}
"""Kind → `ss_network_module`, `ss_network_args`."""


def kohya_name(module: str, component: str = COMPONENT) -> str:
    """`mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`."""
    return PREFIXES[component] + in_files(component, module).replace(".", "_")


def module_name(name: str, component: str = COMPONENT) -> str:
    """The reverse of `kohya_name`."""
    dotted = name.removeprefix(PREFIXES[component]).replace("_", ".")
    for compound in COMPOUNDS if component == COMPONENT else OF_ENCODERS:
        dotted = re.sub(rf"(?<![a-z]){re.escape(compound.replace('_', '.'))}(?![a-z])", compound, dotted)
    return in_memory(component, dotted)


def write_kohya(
    path: Path, weights: LoraWeights, *, told: Description | None = None, width: int | None = None
) -> LoraWeights:
    """Writes atomically; equal weights give equal bytes. Says nothing private: no paths, dates, captions.

    Args:
        told: what the file says about itself.
        width: of the text that the base's cross-attention takes; None: as the layers say.

    Returns:
        What was written: the same, but for LoKr with two whole factors, whose strength goes into the first.

    Raises:
        AdapterError: weights that this dialect has no names for.
    """
    import torch

    _require_names(weights)
    said = {c: {m: said_in_kohya(layer) for m, layer in layers.items()} for c, layers in weights.modules.items()}
    tensors: dict[str, Tensor] = {}
    for component, layers in said.items():
        for module, layer in layers.items():
            name = kohya_name(module, component)
            tensors |= {f"{name}.{part}": tensor for part, tensor in layer.named(KOHYA).items()}
            tensors[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    width = width or text_width(said[COMPONENT])
    metadata = (told or Description("LoRA")).header() | _metadata(said[COMPONENT], width)
    files.write(path, hashed(files.safetensors_bytes(tensors, {}), metadata))
    return LoraWeights(said)


def said_in_kohya(layer: Layer) -> Layer:
    """The same ΔW as this dialect can say it."""
    return layer.with_scale_inside() if isinstance(layer, LoKr) else layer


def _require_names(weights: LoraWeights) -> None:
    if COMPONENT not in weights.modules or not weights.modules.keys() <= PREFIXES.keys():
        raise AdapterError(
            "kohya's format is written for the UNet of Stable Diffusion 1.x and 2.x, and its text encoder",
            given=", ".join(weights.modules),
            allowed=", ".join(PREFIXES),
        )
    for component, layers in weights.modules.items():
        lost = [module for module in layers if module_name(kohya_name(module, component), component) != module]
        if lost or not all(by_diffusers(component, module) for module in layers):
            given = ", ".join(lost[:3]) or next(iter(layers))
            raise AdapterError("kohya's format has no name for a layer of this adapter", given=given)


def _metadata(layers: Mapping[str, Layer], width: int) -> dict[str, str]:
    version, architecture = BASES[width]
    ranks, alphas = ({getattr(layer, what) for layer in layers.values()} for what in ("rank", "alpha"))
    module, arguments = NETWORKS[next(iter(layers.values())).kind]
    return {
        "format": "pt",
        "ss_v2": str(version == "sd_v2"),
        "ss_base_model_version": version,
        "ss_network_module": module,
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "ss_network_args": arguments,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    }


def text_width(layers: Mapping[str, Layer]) -> int:
    """Width of the text that cross-attention takes: 768 or 1024.

    Raises:
        AdapterError: no cross-attention, or of a model whose names in this dialect are others.
    """
    widths = {layer.size[1] for module, layer in layers.items() if re.search(r"attn2\.to_[kv]$", module)}
    if len(widths) != 1 or not widths <= set(BASES):
        raise AdapterError(
            "no program that reads kohya's format has a base of this kind",
            given=f"cross-attention on text of width {', '.join(map(str, sorted(widths))) or 'none'}",
            allowed="768 (Stable Diffusion 1.x) or 1024 (2.x)",
        )
    return widths.pop()


def is_kohya(names: list[str]) -> bool:
    """Whether tensors of these names are kohya's."""
    return any(name.startswith(("lora_unet_", "lora_te")) for name in names)


def read_kohya(path: Path) -> LoraWeights:
    """Reads and judges a file of this dialect; a missing alpha is the rank.

    Raises:
        AdapterError: damaged, a part of a layer, shapes that do not fit, values that are not finite, keys that are no layer of
            a UNet or its text encoder (nor are DoRA with LoHa or LoKr read).
    """
    tensors, metadata = open_tensors(path)
    components = {prefix: component for component, prefix in PREFIXES.items()}
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if match is None:
            raise AdapterError(
                "the adapter holds a key that is no layer of a UNet or its text encoder",
                given=f"{key} in {path}",
                allowed=f"{' or '.join(PREFIXES.values())}<layer>.lora_down.weight, .lora_up.weight, .alpha, .dora_scale, .hada_",
            )
        component = components[match[1]]
        modules = found.setdefault(component, {})
        modules.setdefault(module_name(match[2], component), {})[match[3]] = tensor
    read = {c: {m: _layer(path, m, parts) for m, parts in sorted(modules.items())} for c, modules in found.items()}
    return LoraWeights(dict(sorted(read.items())), metadata)


def _layer(path: Path, module: str, found: Mapping[str, Tensor]) -> Layer:
    told = found["alpha"].flatten().tolist() if "alpha" in found else [None]
    if len(told) != 1:
        raise AdapterError(f"the alpha of {module} is no single number", given=path)
    parts = {name: tensor for name, tensor in found.items() if name != "alpha"}
    alpha = None if told[0] is None else float(told[0])
    return layer_of(parts, lambda rank: alpha, dialect=KOHYA, label=module, path=path)
