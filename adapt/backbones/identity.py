"""Digests that tell bases apart: by what fits them, and by what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter, signature
from typing import Any

from diffusers.configuration_utils import ConfigMixin
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
    return _digest(denoiser, _meant(denoiser), _shapes(denoiser))


Shapes = Mapping[str, list[int]]
"""Name of each parameter → its shape."""
Variants = Callable[[Mapping[str, Any], Shapes], Iterable[tuple[Mapping[str, Any], Shapes]]]
"""`variants(configuration, shapes)`: those of the other networks of a family that an adapter of one of them fits."""


def relatives_of(denoiser: Any, variants: Variants) -> frozenset[str]:
    """Fingerprints of a network's variants; its own, too, as it was before what its configuration says beside was left out."""
    shapes = _shapes(denoiser)
    others = {_digest(denoiser, *variant) for variant in variants(_meant(denoiser), shapes)}
    return frozenset({_digest(denoiser, _unpacked(denoiser.config), shapes), *others})


def widened(
    config: Mapping[str, Any], shapes: Shapes, first: str, widths: Iterable[int]
) -> Iterator[tuple[Mapping[str, Any], Shapes]]:
    """Networks that take in other channels, and are the same behind their first layer.

    Args:
        first: name of that layer.
        widths: how many channels they take in.
    """
    weight, outs = f"{first}.weight", {config.get("out_channels"), None}
    for width in widths:
        taken = {**shapes, weight: [shapes[weight][0], width, *shapes[weight][2:]]}
        for out in outs:  # Flux.1's says None for "as many as come in", and Fill's the number
            said = {"out_channels": out} if "out_channels" in config else {}
            yield {**config, **said, "in_channels": width}, taken


def _digest(denoiser: Any, config: Mapping[str, Any], shapes: Shapes) -> str:
    text = json.dumps([type(denoiser).__name__, config, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shapes(denoiser: nn.Module) -> dict[str, list[int]]:
    """Whatever it is packed into."""
    packed = {f"{name}.weight".replace(".base_layer.", "."): shape_of(m) for name, m in packed_layers(denoiser)}
    return {name: list(packed.get(name, p.shape)) for name, p in base_state(denoiser)}


def _meant(denoiser: Any) -> dict[str, Any]:
    """What its class takes of its configuration: published files say more at times, of their training's averages, say."""
    taken = signature(type(denoiser).__init__).parameters.values()
    said = _unpacked(denoiser.config)
    if any(one.kind is Parameter.VAR_KEYWORD for one in taken) or not isinstance(denoiser, ConfigMixin):
        return said
    names = {one.name for one in taken}
    return {key: value for key, value in said.items() if key in names}


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what the library adds: the path that it was read from, its own version."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _unpacked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without how it is held in few bits."""
    return {key: value for key, value in _said(config).items() if key != "quantization_config"}


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
