"""An adapter of lower rank: what it does to the weights, by singular values."""

from __future__ import annotations

import math

import torch

from adapt.errors import AdapterError
from adapt.formats import Layer, LoraWeights, Pair
from adapt.formats.factorise import Keep, nearest_to


@torch.no_grad()
def resized(weights: LoraWeights, keep: Keep) -> tuple[LoraWeights, float]:
    """Each layer as the nearest LoRA of as many singular values as are kept, and ‖what is left out‖ / ‖ΔW‖ over all layers.

    Raises:
        AdapterError: another kind than LoRA.
    """
    found: dict[str, dict[str, Layer]] = {}
    lost = whole = 0.0
    for component, layers in weights.modules.items():
        for name, layer in layers.items():
            small, left_out = nearest_to(require_lora(layer), keep)
            found.setdefault(component, {})[name] = small
            lost, whole = lost + float(left_out), whole + float(small.norm()) ** 2 + float(left_out)
    return LoraWeights(found, weights.metadata), math.sqrt(lost / whole) if whole else 0.0


def require_lora(layer: Layer) -> Pair:
    """The layer, a LoRA: DoRA's ΔW depends on the base's weights, and LoHa and LoKr do not say the shape of theirs.

    Raises:
        AdapterError: another kind.
    """
    if not isinstance(layer, Pair) or layer.kind != "lora":
        raise AdapterError(
            "only LoRA can be merged or resized without its base",
            given=layer.kind,
            next="make it a LoRA first: adapt export --format diffusers --nearest RANK --base BASE",
        )
    return layer
