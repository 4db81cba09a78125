"""kohya's LoRA file, which ComfyUI, A1111, Forge and InvokeAI read: here for Stable Diffusion 1.x and 2.x.

Keys `lora_unet_<module with _ for .>.lora_down.weight` (r, in), `.lora_up.weight` (out, r) and `.alpha`, a scalar; ΔW is
alpha / r · up @ down. The base is told by the width of the text that cross-attention takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.diffusers_lora import open_tensors
from adapt.formats.lora_weights import LoraWeights, Pair

if TYPE_CHECKING:
    from torch import Tensor

COMPONENT, PREFIX = "unet", "lora_unet_"
KEY = re.compile(rf"^{PREFIX}(.+)\.(lora_down\.weight|lora_up\.weight|alpha)$")
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
BASES = {768: ("sd_v1", "stable-diffusion-v1/lora"), 1024: ("sd_v2", "stable-diffusion-v2-512/lora")}
"""Width of the text → `ss_base_model_version`, `modelspec.architecture`."""


def kohya_name(module: str) -> str:
    """`mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`."""
    return PREFIX + module.replace(".", "_")


def module_name(name: str) -> str:
    """The reverse of `kohya_name`."""
    dotted = name.removeprefix(PREFIX).replace("_", ".")
    for compound in COMPOUNDS:
        dotted = re.sub(rf"(?<![a-z]){re.escape(compound.replace('_', '.'))}(?![a-z])", compound, dotted)
    return dotted


def write_kohya(path: Path, weights: LoraWeights, *, title: str = "", trigger: str | None = None) -> None:
    """Writes atomically; equal weights give equal bytes. Says nothing private: no paths, dates, captions.

    Raises:
        AdapterError: weights that this dialect has no names for.
    """
    import torch

    pairs = _unet_pairs(weights)
    tensors: dict[str, Tensor] = {}
    for module, pair in pairs.items():
        name = kohya_name(module)
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up}
        tensors[f"{name}.alpha"] = torch.tensor(pair.alpha, dtype=torch.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, files.safetensors_bytes(tensors, _metadata(pairs, title, trigger)))


def _unet_pairs(weights: LoraWeights) -> Mapping[str, Pair]:
    if set(weights.modules) != {COMPONENT}:
        raise AdapterError(
            "kohya's format is written for the UNet of Stable Diffusion 1.x and 2.x only",
            given=", ".join(weights.modules),
            allowed=COMPONENT,
        )
    pairs = weights.modules[COMPONENT]
    if lost := [module for module in pairs if module_name(kohya_name(module)) != module]:
        raise AdapterError("kohya's format has no name for a layer of this adapter", given=", ".join(lost[:3]))
    return pairs


def _metadata(pairs: Mapping[str, Pair], title: str, trigger: str | None) -> dict[str, str]:
    version, architecture = BASES[text_width(pairs)]
    ranks, alphas = ({getattr(pair, what) for pair in pairs.values()} for what in ("rank", "alpha"))
    values = {
        "ss_v2": str(version == "sd_v2"),
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(alphas.pop()) if len(alphas) == 1 else "Dynamic",
        "ss_network_args": "{}",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title or "LoRA",
    }
    return values | ({"modelspec.trigger_phrase": trigger} if trigger else {})


def text_width(pairs: Mapping[str, Pair]) -> int:
    """Width of the text that cross-attention takes: 768 or 1024.

    Raises:
        AdapterError: no cross-attention, or of a model whose names in this dialect are others.
    """
    widths = {pair.down.shape[1] for module, pair in pairs.items() if re.search(r"attn2\.to_[kv]$", module)}
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
        AdapterError: damaged, half a pair, shapes that do not fit, values that are not finite, keys that are no plain LoRA of
            a UNet (text encoders, LoHa, LoKr, DoRA are not read yet).
    """
    tensors, metadata = open_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if match is None:
            raise AdapterError(
                "the adapter holds a key that is no plain LoRA of a UNet",
                given=f"{key} in {path}",
                allowed=f"{PREFIX}<layer>.lora_down.weight, .lora_up.weight, .alpha",
            )
        parts.setdefault(module_name(match[1]), {})[match[2]] = tensor
    pairs = {module: _pair(path, module, found) for module, found in sorted(parts.items())}
    return LoraWeights({COMPONENT: pairs}, metadata)


def _pair(path: Path, module: str, found: Mapping[str, Tensor]) -> Pair:
    if not {"lora_down.weight", "lora_up.weight"} <= set(found):
        raise AdapterError(f"the adapter holds only {', '.join(found)} of {module}", given=path)
    down, up = found["lora_down.weight"], found["lora_up.weight"]
    alpha = found["alpha"].flatten().tolist() if "alpha" in found else [len(down)]
    if len(alpha) != 1:
        raise AdapterError(f"the alpha of {module} is no single number", given=path)
    pair = Pair(down, up, float(alpha[0]))
    if fault := pair.fault():
        raise AdapterError(f"the adapter's {module} holds {fault}", given=path)
    return pair
