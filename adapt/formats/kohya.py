"""kohya's LoRA file, which ComfyUI, A1111, Forge and InvokeAI read: Stable Diffusion 1.x, 2.x, XL and 3, Flux, and their text
encoders; Wan (musubi-tuner's names).

Keys `lora_unet_<layer with _ for .>.lora_down.weight` (r, in), `.lora_up.weight` (out, r) and `.alpha`, a scalar; ΔW is
alpha / r · up @ down. LyCORIS's kinds likewise: `.hada_w1_a` …, `.lokr_w1` …, `.oft_blocks` (kohya's own: `oft_unet_…`),
`.a1.weight` … of GLoRA, `.weight` and `.on_input` of (IA)³, and DoRA's lengths as `.dora_scale`. Layers have diffusers' names
in Stable Diffusion 1.x and 2.x and the models' own in the others. Text encoders: `lora_te_` in 1.x and 2.x, `lora_te1_`,
`lora_te2_`, `lora_te3_` in the others. Which family it is, the shapes say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.described import Description
from adapt.formats.encoder_names import by_diffusers, in_files, in_memory
from adapt.formats.header import hashed
from adapt.formats.layer import KOHYA, Layer
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.names.families import Family, family_of
from adapt.formats.names.words import dotted, flat
from adapt.formats.opening import open_tensors
from adapt.formats.placing import Place, at, denoiser, is_flux, native_layers, read_placed, said_inside
from adapt.formats.spec import NETWORKS, header, model_of

if TYPE_CHECKING:
    from torch import Tensor

PREFIX, OFT_PREFIX = "lora_unet_", "oft_unet_"
KEY = re.compile(r"^(lora_unet|oft_unet|lora_te[123]?)_")
TEXT = {"lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}


def kohya_name(module: str) -> str:
    """`mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`."""
    return PREFIX + flat(module)


def module_name(name: str) -> str:
    """The reverse of `kohya_name`."""
    return dotted(name.removeprefix(PREFIX))


# --------------------------------------------------------------------------------------------------------------- writing
def write_kohya(
    path: Path,
    weights: LoraWeights,
    *,
    told: Description | None = None,
    width: int | None = None,
    family: Family | None = None,
) -> LoraWeights:
    """Writes atomically; equal weights give equal bytes. Says nothing private: no paths, dates, captions.

    Args:
        told: what the file says about itself.
        width: of the text that the base's cross-attention takes; None: as the layers say.
        family: None: as `width` or the layers say.

    Returns:
        What a reader finds in it: the same, but for LoKr with two whole factors, whose strength goes into the first, and for
        layers of one fused weight that have different strengths.

    Raises:
        AdapterError: weights that this dialect has no names for.
    """
    family = family or family_of(weights.modules, width)
    layers = dict(_named(weights, family))
    tensors = tensors_of(layers)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = told or Description("LoRA")
    metadata = header(layers, model_of(family, weights.modules, told), told, weights.metadata)
    files.write(path, hashed(files.safetensors_bytes(tensors, {}), metadata))
    return kohya_weights(path, tensors, {})


def tensors_of(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """By kohya's keys, alpha with them.

    Raises:
        AdapterError: a kind that has no names there.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if layer.kind not in NETWORKS:
            raise AdapterError(
                "LyCORIS and kohya have no names for adapters of this kind",
                given=layer.kind,
                next="--nearest RANK makes a plain LoRA of it",
            )
        said = said_inside(layer)
        tensors |= {f"{name}.{part}": tensor for part, tensor in said.named(KOHYA).items()}
        if said.kind != "ia3":
            tensors[f"{name}.alpha"] = torch.tensor(said.alpha, dtype=torch.float32)
    return tensors


def _named(weights: LoraWeights, family: Family) -> Iterator[tuple[str, Layer]]:
    """Layers by kohya's names."""
    if family.name in ("sd1", "sd2"):
        yield from _in_diffusers_names(weights, family)
        return
    for component, name, layer in native_layers(weights, family):
        yield f"{family.text.get(component, 'lora_unet')}_{flat(name)}", layer


def _in_diffusers_names(weights: LoraWeights, family: Family) -> Iterator[tuple[str, Layer]]:
    """kohya's scripts train 1.x and 2.x in a copy of diffusers' UNet."""
    prefixes = {family.component: PREFIX.rstrip("_"), **family.text}
    for component, layers in weights.modules.items():
        if component not in prefixes:
            raise AdapterError(
                f"kohya's format has no name for a component of this adapter in {family.title}",
                given=component,
                allowed=", ".join(prefixes),
            )
        for module, layer in layers.items():
            name = in_files(component, module)
            if dotted(flat(name)) != name or not by_diffusers(component, module):
                raise AdapterError("kohya's format has no name for a layer of this adapter", given=module)
            yield f"{prefixes[component]}_{flat(name)}", layer


# --------------------------------------------------------------------------------------------------------------- reading
def read_kohya(path: Path) -> LoraWeights:
    """Reads and judges a file of this dialect; a missing alpha is the rank.

    Raises:
        AdapterError: damaged, a part of a layer, shapes that do not fit, values that are not finite, keys that are no layer of
            a model that is known here (nor DoRA with LoHa or LoKr).
    """
    tensors, metadata = open_tensors(path)
    return kohya_weights(path, tensors, metadata)


def kohya_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraWeights:
    """The same from tensors."""
    return read_placed(path, tensors, metadata, placer(tensors))


def placer(names: Mapping[str, Tensor]) -> Callable[[str], Place | None]:
    """Where a layer of a name belongs; which encoder `lora_te3_` is depends on the rest of the file."""
    third = "text_encoder_2" if is_flux(names) else "text_encoder_3"

    def place(name: str) -> Place | None:
        for prefix in (PREFIX, OFT_PREFIX):
            if name.startswith(prefix):
                return denoiser(name.removeprefix(prefix), underscored=True)
        for prefix, component in {**TEXT, "lora_te3_": third}.items():
            if name.startswith(prefix):
                return at(component, in_memory(component, dotted(name.removeprefix(prefix))))
        return None

    return place
