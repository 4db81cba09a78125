"""diffusers' LoRA file: `pytorch_lora_weights.safetensors`.

Keys `<component>.<module>.lora_A.weight` (r, in) and `.lora_B.weight` (out, r); alpha stands only in the header, as
`lora_adapter_metadata`: peft's configuration with each key prefixed by its component. Without it diffusers takes alpha = r.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import files
from adapt.errors import AdapterError
from adapt.formats.lora_weights import LoraWeights, Pair

if TYPE_CHECKING:
    from torch import Tensor

FILE_NAME = "pytorch_lora_weights.safetensors"
HEADER = "lora_adapter_metadata"
COMPONENTS = ("unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2")
KEY = re.compile(rf"^({'|'.join(COMPONENTS)})\.(.+)\.lora_(A|B)\.weight$")
LARGEST_HEADER = 16 * 2**20


def write_lora(path: Path, weights: LoraWeights, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes atomically; equal weights give equal bytes. Rank and alpha in the header are those of the pairs.

    Args:
        configs: peft's `LoraConfig.to_dict()` by component, where there is one. Entries that are None, empty or peft's
            own bookkeeping are left out: an older peft refuses fields that it does not know.
    """
    tensors = {}
    for component, pairs in weights.modules.items():
        for module, pair in pairs.items():
            tensors[f"{component}.{module}.lora_A.weight"] = pair.down
            tensors[f"{component}.{module}.lora_B.weight"] = pair.up
    described = {name: _described(pairs, configs.get(name, {})) for name, pairs in weights.modules.items()}
    header = {f"{name}.{k}": v for name, config in described.items() for k, v in config.items()}
    metadata = {**weights.metadata, HEADER: json.dumps(header, sort_keys=True)}
    files.write(path, files.safetensors_bytes(tensors, metadata))


PORTABLE = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias",
            "init_lora_weights", "peft_type")  # fmt: skip


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of peft's configuration that say what the weights are."""
    values = {k: config[k] for k in PORTABLE if config.get(k) not in (None, {}, [])}
    return {k: sorted(v) if isinstance(v, set | frozenset) else v for k, v in values.items()}


def _described(pairs: Mapping[str, Pair], config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with which peft gives each of these pairs its rank and its factor."""
    ranks, alphas = ({n: getattr(pair, what) for n, pair in pairs.items()} for what in ("rank", "alpha"))
    r, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    patterns = {
        "rank_pattern": {f"^{re.escape(n)}": rank for n, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"^{re.escape(n)}": a for n, a in alphas.items() if a != alpha},
    }
    kept = {k: v for k, v in portable(config).items() if k not in (*patterns, "use_rslora")}
    return {
        "target_modules": sorted(pairs),
        **kept,
        "r": r,
        "lora_alpha": alpha,
        **{k: v for k, v in patterns.items() if v},
    }


def read_lora(path: Path) -> LoraWeights:
    """Reads and judges a diffusers LoRA file.

    Raises:
        AdapterError: pickles; not a whole safetensors file; keys that are no LoRA; half a pair; shapes that do not fit;
            values that are not finite.
    """
    tensors, metadata = open_tensors(path)
    halves: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if match is None:
            raise AdapterError(
                "the adapter holds a key that is no diffusers LoRA",
                given=f"{key} in {path}",
                allowed="<component>.<module>.lora_A.weight and .lora_B.weight",
            )
        halves.setdefault((match[1], match[2]), {})[match[3]] = tensor
    if not halves:
        raise AdapterError("the adapter holds no LoRA", given=path)
    alphas = _alphas(path, metadata)
    modules: dict[str, dict[str, Pair]] = {}
    for (component, module), half in sorted(halves.items()):
        modules.setdefault(component, {})[module] = _pair(path, f"{component}.{module}", half, alphas)
    return LoraWeights(modules, metadata)


def _pair(path: Path, module: str, half: Mapping[str, Tensor], alphas: Mapping[str, Mapping[str, Any]]) -> Pair:
    if set(half) != {"A", "B"}:
        raise AdapterError(f"the adapter holds only lora_{next(iter(half))} of {module}", given=path)
    component, _, name = module.partition(".")
    try:
        alpha = _alpha(alphas.get(component, {}), name, len(half["A"]))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise AdapterError(f"the adapter's {HEADER} gives {module} no alpha", given=path) from error
    pair = Pair(half["A"], half["B"], alpha)
    if fault := pair.fault():
        raise AdapterError(f"the adapter's {module} holds {fault}", given=path)
    return pair


def _alpha(config: Mapping[str, Any], module: str, rank: int) -> float:
    """peft's rule: the first pattern that matches the end of the name, else `lora_alpha`; rsLoRA divides by √r."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = float(next(fitting, config.get("lora_alpha", rank)))
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def _alphas(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Configuration by component from the file's header; empty without one."""
    try:
        header = json.loads(metadata.get(HEADER, "{}"))
        configs: dict[str, dict[str, Any]] = {}
        for key, value in header.items():
            component, _, name = key.partition(".")
            configs.setdefault(component, {})[name] = value
    except (ValueError, AttributeError, RecursionError) as error:
        raise AdapterError(f"the adapter's {HEADER} is no JSON object", given=path) from error
    if any(config.get("use_dora") for config in configs.values()):
        raise AdapterError("DoRA adapters cannot be read yet", given=path, allowed="LoRA")
    return configs


def check_file(path: Path) -> list[str]:
    """What can be said of an adapter file without torch: it is there, it is safetensors, its header and length are whole.

    Returns:
        The names of its tensors.

    Raises:
        AdapterError: see above.
    """
    if not path.suffix and not path.exists():
        raise AdapterError("no such adapter", given=path)
    if path.suffix != ".safetensors":
        raise AdapterError(
            f"{path.suffix or 'such'} files are never read: they can run code when opened",
            given=path,
            allowed=".safetensors",
        )
    if not path.is_file():
        raise AdapterError("no such adapter", given=path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= LARGEST_HEADER else b""
    except OSError as error:
        raise AdapterError(f"the adapter cannot be read: {error.strerror}", given=path) from error
    try:
        entries = json.loads(header)
        end = max((int(e["data_offsets"][1]) for name, e in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise AdapterError(
            "the file is damaged, or no safetensors file", given=path, next="copy or download it again"
        ) from error
    if path.stat().st_size != 8 + length + end:
        raise AdapterError(
            "the file is cut off",
            given=f"{path} ({path.stat().st_size} of {8 + length + end} bytes)",
            next="copy or download it again",
        )
    return [name for name in entries if name != "__metadata__"]


def open_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors (CPU) and the header's metadata of a checked safetensors file."""
    check_file(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterError(f"the file is damaged: {error}", given=path) from error
