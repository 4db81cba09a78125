"""Any adapter as the nearest plain LoRA: what it does to the base's weights, by singular values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapt.formats import Layer, LoraWeights
from adapt.formats.factorise import nearest
from adapt.lora.applied import weight_of


@torch.no_grad()
def nearest_weights(modules: Mapping[str, nn.Module], weights: LoraWeights, rank: int) -> tuple[LoraWeights, float]:
    """The LoRA of this rank nearest to the adapter, and ‖what it leaves out‖ / ‖ΔW‖ over all layers.

    Args:
        modules: networks of the base by component name: DoRA's ΔW depends on their weights.

    Raises:
        AdapterError: made for another base.
    """
    found: dict[str, dict[str, Layer]] = {}
    lost, whole = 0.0, 0.0
    for component, layers in weights.modules.items():
        for name, layer in layers.items():
            delta = _difference(layer, weight_of(modules, f"{component}.{name}", layer))
            pair, left_out = nearest(delta, rank)
            found.setdefault(component, {})[name] = pair
            lost, whole = lost + float(left_out), whole + float(delta.square().sum())
    return LoraWeights(found), math.sqrt(lost / whole) if whole else 0.0


def _difference(layer: Layer, weight: Tensor) -> Tensor:
    """W' - W; for kinds that only add, without the rounding of W."""
    if layer.adds:
        return layer.delta(weight.shape)
    return layer.merged(weight, 1.0).float() - weight.float()
