"""PEFT's own folder: `adapter_config.json` and `adapter_model.safetensors`, for what diffusers' LoRA file cannot hold.

Keys `base_model.model.<module>.<tensor>`. One folder is one network; the header says which component of the pipeline it is.
An adapter of several has a folder for each, named after it: `peft/unet`, `peft/text_encoder`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.diffusers_lora import COMPONENTS, describe, described_layer
from adapt.formats.header import carried
from adapt.formats.kinds import tensor_names
from adapt.formats.layer import PEFT, Layer
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.opening import open_tensors
from adapt.formats.vera import SHARED, of_network

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, WEIGHTS_NAME, CONFIG_NAME = "peft", "adapter_model.safetensors", "adapter_config.json"
PREFIX, COMPONENT = "base_model.model.", "adapt.component"
OF_ALL = {f"base_model.{name}": name for name in SHARED}
"""Keys of what all layers of a network share."""
LARGEST_CONFIG = 16 * 2**20
TYPES = ("LORA", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "TLORA")
"""peft's own, and T-LoRA, which peft refuses by this name instead of drawing it wrongly."""


def write_peft(folder: Path, weights: LoraWeights, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes both files atomically; equal weights give equal bytes.

    Args:
        configs: as for `write_lora`.

    Raises:
        AdapterError: layers that peft's configuration cannot describe.
    """
    for component, inside in folders(folder, weights).items():
        _write(inside, weights, component, configs)


def folders(folder: Path, weights: LoraWeights) -> dict[str, Path]:
    """Component → the folder of its network."""
    several = len(weights.modules) > 1
    return {component: folder / component if several else folder for component in weights.modules}


def _write(folder: Path, weights: LoraWeights, component: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    layers = weights.modules[component]
    named = ((m, n, t) for m, layer in layers.items() for n, t in layer.named(PEFT).items() if n not in SHARED)
    tensors = {f"{PREFIX}{module}.{name}": tensor for module, name, tensor in named}
    tensors |= {f"base_model.{name}": tensor for name, tensor in of_network(layers).items()}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / CONFIG_NAME, _config(layers, configs.get(component, {})))
    files.write(
        folder / WEIGHTS_NAME, files.safetensors_bytes(tensors, {**carried(weights.metadata), COMPONENT: component})
    )


def _config(layers: Mapping[str, Layer], config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{"peft_type": "LORA", "inference_mode": True, "task_type": None, "base_model_name_or_path": None},
        **describe(layers, {**_shape_of(layers), **config}),
        "target_modules": sorted(layers),
    }


def _shape_of(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """What peft must be told to make tensors of these shapes, where the training's own configuration does not say it."""
    told: dict[str, Any] = {}
    if any(layer.tensors().keys() & {"t1", "t2"} for layer in layers.values()):
        told["use_effective_conv2d"] = True
    if cut := {n: layer for n, layer in layers.items() if isinstance(layer, LoKr)}:
        told["decompose_both"] = any(layer.w1 is None for layer in cut.values())
        told["decompose_factor"] = _factor(cut)
    return told


def _factor(layers: Mapping[str, LoKr]) -> int:
    """The `decompose_factor` with which peft cuts every one of these weights as they are cut; -1 where none does (the proof
    then says which layer peft does not take)."""
    seen = sorted({layer.factors[0][0] for layer in layers.values()})
    return next((f for f in (-1, *seen) if all(_is_cut_by(layer, f) for layer in layers.values())), -1)


def _is_cut_by(layer: LoKr, factor: int) -> bool:
    from peft.tuners.lokr.layer import factorization

    (a, c), (b, d) = layer.factors
    inputs = [d // k for k in (1, 9) if d % k == 0]  # a flat w2 does not say whether it is of a 3 × 3 kernel
    return factorization(a * b, factor) == (a, b) and any(factorization(c * n, factor) == (c, n) for n in inputs)


def of_one_adapter(path: Path) -> list[Path]:
    """The weights files of all networks of an adapter, by one of them."""
    if path.parent.parent.name != FOLDER:
        return [path]
    return sorted(path.parent.parent.glob(f"*/{WEIGHTS_NAME}"))


def read_peft(path: Path) -> LoraWeights:
    """Reads and judges a peft folder, with those of the other networks of the same adapter, by its weights file.

    Raises:
        AdapterError: as `read_lora`; no configuration beside it, or one of a kind that is not known here.
    """
    read = [_read(each) for each in of_one_adapter(path)]
    modules = {component: layers for weights in read for component, layers in weights.modules.items()}
    return LoraWeights(modules, read[0].metadata if len(read) == 1 else {})


def _read(path: Path) -> LoraWeights:
    tensors, metadata = open_tensors(path)
    config = read_config(path.with_name(CONFIG_NAME))
    names = tensor_names(PEFT)
    shared = {OF_ALL[key]: tensors.pop(key) for key in OF_ALL if key in tensors}
    if config["peft_type"] == "VERA" and len(shared) < len(SHARED):
        raise AdapterError(
            "the VeRA was saved without the matrices that its layers share: their sizes are those of its base",
            given=path,
            next="save it with save_projection=True",
        )
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = next((n for n in names if key.endswith(f".{n}")), None)
        if name is None or not key.startswith(PREFIX):
            raise AdapterError("the peft adapter holds a key that is not known", given=f"{key} in {path}")
        modules.setdefault(key.removeprefix(PREFIX).removesuffix(f".{name}"), {})[name] = tensor
    if not modules:
        raise AdapterError("the adapter holds no LoRA", given=path)
    component = metadata.pop(COMPONENT, None) or _component(modules)
    if component not in COMPONENTS:
        raise AdapterError(
            "the peft adapter is of no component that is known", given=component, allowed=", ".join(COMPONENTS)
        )
    layers = {
        m: described_layer(path, f"{component}.{m}", m, {**parts, **shared}, config)
        for m, parts in sorted(modules.items())
    }
    return LoraWeights({component: layers}, metadata)


def read_config(path: Path) -> dict[str, Any]:
    """`adapter_config.json`; needs no torch.

    Raises:
        AdapterError: not there, no JSON object, or of a kind that is not known here.
    """
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError
        config = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise AdapterError("a peft adapter needs its adapter_config.json, and it cannot be read", given=path) from error
    if config.get("peft_type") not in TYPES:
        raise AdapterError(
            "peft adapters of this kind are not read", given=config.get("peft_type"), allowed=", ".join(TYPES)
        )
    return config


def _component(modules: Mapping[str, Any]) -> str:
    """Somebody else's folder does not say: UNets are told by their blocks."""
    return (
        "unet"
        if any(name.startswith(("down_blocks.", "mid_block.", "up_blocks.")) for name in modules)
        else "transformer"
    )


def is_key(name: str) -> bool:
    """Whether a tensor of this name is a peft folder's."""
    return name.startswith(PREFIX) or name in OF_ALL
