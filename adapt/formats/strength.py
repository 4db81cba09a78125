"""Where the strength of a LoRA stands. In diffusers' names alpha is in the header alone, as `lora_adapter_metadata`, which older
versions of diffusers, ComfyUI, InvokeAI and stable-diffusion.cpp do not read: they take a factor of 1. So what a run shares has
the strength inside its numbers and an alpha that is the rank: every reader then finds the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapt.formats.diffusers_lora import alpha_of
from adapt.formats.layer import Layer
from adapt.formats.lora_weights import Pair

KINDS = ("lora", "dora")
"""Kinds of which alpha is all that says the strength, and is said in a header."""
Modules = Mapping[str, Mapping[str, Layer]]
"""As in `LoraWeights`."""


def inside(modules: Modules) -> Modules:
    """The same at a factor of 1, with alpha the rank of each layer."""
    return _each(modules, lambda component, name, pair: float(pair.rank))


def as_told(modules: Modules, configs: Mapping[str, Mapping[str, Any]]) -> Modules:
    """The reverse: with the alphas that they were trained with, where they are inside.

    Args:
        configs: peft's configuration by component, of the training.
    """

    def alpha(component: str, name: str, pair: Pair) -> float:
        config = configs.get(component)
        return alpha_of(config, name, pair.rank) if config and pair.scale == 1 else pair.alpha

    return _each(modules, alpha)


def _each(modules: Modules, alpha: Callable[[str, str, Pair], float]) -> Modules:
    return {
        component: {
            name: layer.with_alpha(alpha(component, name, layer))
            if isinstance(layer, Pair) and layer.kind in KINDS and layer.alpha > 0
            else layer
            for name, layer in layers.items()
        }
        for component, layers in modules.items()
    }
