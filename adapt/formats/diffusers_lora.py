"""diffusers' LoRA file: `pytorch_lora_weights.safetensors`.

Keys `<component>.<module>.lora_A.weight` (r, in), `.lora_B.weight` (out, r) and for DoRA `.lora_magnitude_vector`; alpha stands
only in the header, as `lora_adapter_metadata`: peft's configuration with each key prefixed by its component. Without it
diffusers takes alpha = r.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.dora import Dora
from adapt.formats.encoder_names import CLIP, in_files, in_memory
from adapt.formats.header import HEADER, carried, hashed
from adapt.formats.kinds import layer_of, tensor_names
from adapt.formats.layer import PEFT, Layer
from adapt.formats.lokr import LoKr
from adapt.formats.lora_weights import LoraWeights
from adapt.formats.opening import open_tensors
from adapt.formats.patterns import by_pattern
from adapt.formats.vera import SHARED, of_network

if TYPE_CHECKING:
    from torch import Tensor

FILE_NAME = "pytorch_lora_weights.safetensors"
COMPONENTS = ("unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3")
_NAMES = "|".join(map(re.escape, tensor_names(PEFT)))
KEY = re.compile(rf"^({'|'.join(COMPONENTS)})\.(?:(.+)\.({_NAMES})|({'|'.join(SHARED)}))$")
"""Component, module and tensor; or component and a tensor that all of its layers share."""


def write_lora(
    path: Path,
    weights: LoraWeights,
    configs: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, str] | None = None,
) -> None:
    """Writes atomically; equal weights give equal bytes. Rank and alpha in the header are those of the layers.

    LoHa and LoKr get peft's names and header: diffusers' models take LoKr so, its pipelines take neither (`formats/readers.py`).

    Args:
        configs: peft's configuration by component, as `to_dict()` has it, where there is one. Entries that are None, empty or
            peft's own bookkeeping are left out: an older peft refuses fields that it does not know.
        told: what the file says about itself (`formats/spec.py`), to which its digests are added; None: what the adapter brings.

    Raises:
        AdapterError: layers that this dialect cannot describe.
    """
    tensors = {
        f"{component}.{in_files(component, module)}.{name}": tensor
        for component, layers in weights.modules.items()
        for module, layer in layers.items()
        for name, tensor in layer.named(PEFT).items()
        if name not in SHARED
    }
    for component, layers in weights.modules.items():
        tensors |= {f"{component}.{name}": tensor for name, tensor in of_network(layers).items()}
    described = {name: describe(layers, configs.get(name, {})) for name, layers in weights.modules.items()}
    header = {f"{name}.{k}": v for name, config in described.items() for k, v in config.items()}
    config = {HEADER: json.dumps(header, sort_keys=True)}
    if told is None:
        content = files.safetensors_bytes(tensors, {**carried(weights.metadata), **config})
    else:
        content = hashed(files.safetensors_bytes(tensors, {}), {**told, **config})
    files.write(path, content)


PORTABLE = ("r", "lora_alpha", "alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias",
            "init_lora_weights", "peft_type", "decompose_factor", "decompose_both", "use_effective_conv2d",
            "oft_block_size", "use_cayley_neumann", "boft_block_size", "boft_block_num",
            "boft_n_butterfly_factor", "projection_prng_key", "save_projection", "d_initial")  # fmt: skip
SAID_OF: Mapping[str, Mapping[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "loha": {"peft_type": "LOHA"},
    "lokr": {"peft_type": "LOKR"},
    "oft": {"peft_type": "OFT", "use_cayley_neumann": False, "r": 0},
    "boft": {"peft_type": "BOFT", "boft_block_num": 0},
    "vera": {"peft_type": "VERA", "save_projection": True},
    "tlora": {"peft_type": "TLORA"},
}
"""What the configuration says of a kind."""
ALPHA: Mapping[str, str] = {"lora": "lora_alpha", "dora": "lora_alpha", "loha": "alpha", "lokr": "alpha",
                             "tlora": "lora_alpha"}  # fmt: skip
"""What it calls alpha."""


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of peft's configuration that say what the weights are."""
    values = {k: config[k] for k in PORTABLE if config.get(k) not in (None, {}, [])}
    return {k: sorted(v) if isinstance(v, set | frozenset) else v for k, v in values.items()}


def describe(layers: Mapping[str, Layer], config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with which peft gives each of these layers its shapes and its factor.

    Raises:
        AdapterError: several kinds in one network, or lengths of input columns: peft's configuration can say neither.
    """
    kinds = {layer.kind for layer in layers.values()}
    if len(kinds) != 1 or not kinds <= SAID_OF.keys():
        raise AdapterError(
            "one peft configuration describes one kind of adapter",
            given=", ".join(sorted(kinds)),
            next="export the nearest plain LoRA: --nearest RANK",
        )
    if not all(layer.by_rows for layer in layers.values() if isinstance(layer, Dora)):
        raise AdapterError(
            "this DoRA sets the lengths of input columns; peft and diffusers know those of output rows",
            next="export it as the nearest plain LoRA: --nearest RANK",
        )
    kind = kinds.pop()
    if kind in SIZED:
        return {"target_modules": sorted(layers), **portable(config), **SAID_OF[kind], **_sizes(kind, layers)}
    ranks = {n: layer.rank or _enough(layer) for n, layer in layers.items()}
    alphas = {n: layer.alpha if layer.rank else float(ranks[n]) for n, layer in layers.items()}
    r, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    anchor = "" if all(CLIP.match(n) for n in layers) else "^"  # other versions put `text_model` before the names
    patterns = {
        "rank_pattern": {f"{anchor}{re.escape(n)}": rank for n, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"{anchor}{re.escape(n)}": a for n, a in alphas.items() if a != alpha},
    }
    kept = {k: v for k, v in portable(config).items() if k not in (*patterns, "use_rslora", "lora_alpha", "alpha")}
    return {
        "target_modules": sorted(layers),
        **kept,
        **SAID_OF[kind],
        "r": r,
        ALPHA[kind]: alpha,
        **{k: v for k, v in patterns.items() if v},
    }


SIZED: Mapping[str, Callable[[Any], dict[str, int]]] = {
    "oft": lambda layer: {"oft_block_size": layer.block},
    "boft": lambda layer: {"boft_block_size": layer.block, "boft_n_butterfly_factor": layer.factors},
    "vera": lambda layer: {"r": layer.rank},
}
"""Kinds of one size everywhere, and how peft's configuration says it of a layer."""


def _sizes(kind: str, layers: Mapping[str, Layer]) -> dict[str, int]:
    """The size of all layers.

    Raises:
        AdapterError: there are several: peft's configuration has one.
    """
    said = [SIZED[kind](layer) for layer in layers.values()]
    if any(each != said[0] for each in said):
        given = sorted({", ".join(f"{k} {v}" for k, v in each.items()) for each in said})
        raise AdapterError(f"peft's {kind.upper()} is of one size everywhere", given="; ".join(given))
    return said[0]


def _enough(layer: Layer) -> int:
    """A rank with which peft's LoKr makes both factors whole."""
    assert isinstance(layer, LoKr), "only LoKr can be without a rank"
    return max(layer.factors[1])


def read_lora(path: Path) -> LoraWeights:
    """Reads and judges a diffusers LoRA file; LoHa and LoKr in peft's names too.

    Raises:
        AdapterError: pickles; not a whole safetensors file; keys that are no adapter; half a pair; shapes that do not fit;
            values that are not finite.
    """
    return lora_weights(path, *open_tensors(path))


def lora_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> LoraWeights:
    """The same from tensors."""
    halves: dict[tuple[str, str], dict[str, Tensor]] = {}
    shared: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if match is None:
            raise AdapterError(
                "the adapter holds a key that is no diffusers LoRA",
                given=f"{key} in {path}",
                allowed="<component>.<module>.lora_A.weight and .lora_B.weight",
            )
        if match[4]:
            shared.setdefault(match[1], {})[match[4]] = tensor
        else:
            halves.setdefault((match[1], match[2]), {})[match[3]] = tensor
    if not halves:
        raise AdapterError("the adapter holds no LoRA", given=path)
    configs = _configs(path, metadata)
    modules: dict[str, dict[str, Layer]] = {}
    for (component, module), parts in sorted(halves.items()):
        label, config = f"{component}.{module}", configs.get(component, {})
        layer = described_layer(path, label, module, {**parts, **shared.get(component, {})}, config)
        modules.setdefault(component, {})[in_memory(component, module)] = layer
    return LoraWeights(modules, dict(metadata))


def described_layer(
    path: Path, label: str, module: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Layer:
    """A layer of peft's names with the rank and alpha that peft's configuration gives it.

    Raises:
        AdapterError: no layer, or a configuration that gives it no alpha.
    """
    try:
        given = int(by_pattern(config.get("rank_pattern"), module, config.get("r", 0)))
        layer = layer_of(
            parts, lambda rank: alpha_of(config, module, rank), dialect=PEFT, rank=given, label=label, path=path
        )
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise AdapterError(f"the adapter's {HEADER} gives {label} no alpha", given=path) from error
    if config.get("use_dora") and layer.kind != "dora":
        raise AdapterError(f"the adapter's {HEADER} says DoRA, but {label} has no magnitude", given=path)
    return layer


def alpha_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """peft's rule: the first pattern that matches the end of the name, else alpha; rsLoRA divides by √r."""
    alpha = float(by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", config.get("alpha", rank))))
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def _configs(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Configuration by component from the file's header; empty without one."""
    try:
        header = json.loads(metadata.get(HEADER, "{}"))
        configs: dict[str, dict[str, Any]] = {}
        for key, value in header.items():
            component, _, name = key.partition(".")
            configs.setdefault(component, {})[name] = value
    except (ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"the adapter's {HEADER} is no JSON object", given=path) from error
    return configs
