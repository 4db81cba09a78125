"""Digests that tell bases apart: by what fits them, and by what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adapt.backbones.packed import packed_layers, shape_of, stored

ADAPTERS = (".lora_", ".hada_", ".lokr_", ".oft_", ".boft_", ".vera_")
"""Parts of the names of what peft puts in."""


def base_state(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters of the pretrained model: without an injected adapter and without peft's `base_layer` in the names."""
    named = ((name.replace(".base_layer.", "."), p) for name, p in module.named_parameters())
    return sorted((name, p) for name, p in named if not any(mark in name for mark in ADAPTERS))


def _kept_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Those that are saved with it: statistics of its latents, say."""
    buffers, kept = dict(module.named_buffers()), module.state_dict(keep_vars=True)
    return sorted((name, value) for name, value in buffers.items() if name in kept)


def fingerprint_of(denoiser: Any, *others: Any) -> str:
    """Digest of a network's class, configuration and shapes, whatever it is packed into; of several, of all of theirs."""
    if others:
        return hashlib.sha256(" ".join(map(fingerprint_of, (denoiser, *others))).encode()).hexdigest()[:16]
    config = {key: value for key, value in _said(denoiser.config).items() if key != "quantization_config"}
    packed = {f"{name}.weight".replace(".base_layer.", "."): shape_of(m) for name, m in packed_layers(denoiser)}
    shapes = {name: list(packed.get(name, p.shape)) for name, p in base_state(denoiser)}
    text = json.dumps([type(denoiser).__name__, config, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what the library adds: the path that it was read from, its own version."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def contents_of(module: Any, told: str) -> str:
    """Digest of a network's class, configuration and weights (64 values of each tensor).

    Args:
        told: what else its outputs depend on.
    """
    config = (
        _said(module.config) if isinstance(module.config, Mapping) else module.config
    )  # transformers' leaves the path out
    digest = hashlib.sha256(f"{type(module).__name__} {config} {told}".encode())
    for name, p in [*base_state(module), *_kept_buffers(module)]:
        numbers = stored(p.detach())
        values = numbers.flatten()[:: max(1, numbers.numel() // 64)].float().cpu()
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]
