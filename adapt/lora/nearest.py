"""Any adapter as the nearest plain LoRA: what it does to the base's weights, by singular values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from adapt.errors import AdapterError
from adapt.formats import Layer, LoraWeights, Pair
from adapt.formats.exactly import as_lora
from adapt.formats.factorise import Keep, nearest, nearest_to
from adapt.formats.tlora import TimeLora
from adapt.lora.applied import weight_of

Modules = Mapping[str, nn.Module]
Smaller = Callable[[str, Layer], tuple[Layer, float, float]]
"""Name `<component>.<layer>` and a layer → another layer, ‖what it leaves out‖² and ‖ΔW‖²."""


@torch.no_grad()
def nearest_weights(modules: Modules, weights: LoraWeights, keep: int | Keep) -> tuple[LoraWeights, float]:
    """The LoRA of as many singular values nearest to the adapter, and ‖what it leaves out‖ / ‖ΔW‖ over all layers.

    Args:
        modules: networks of the base by component name: DoRA's and OFT's ΔW depends on their weights.

    Raises:
        AdapterError: made for another base.
    """

    def smaller(name: str, layer: Layer) -> tuple[Layer, float, float]:
        pair, left_out = nearest_of(layer, weight_of(modules, name, layer), keep)
        return pair, left_out, float(pair.norm()) ** 2 + left_out

    return each(weights, smaller)


def each(weights: LoraWeights, smaller: Smaller) -> tuple[LoraWeights, float]:
    """All layers, one by one, and ‖what is left out‖ / ‖ΔW‖ over all."""
    found: dict[str, dict[str, Layer]] = {}
    lost = whole = 0.0
    for component, layers in weights.modules.items():
        for name, layer in layers.items():
            found.setdefault(component, {})[name], left_out, size = smaller(f"{component}.{name}", layer)
            lost, whole = lost + left_out, whole + size
    return LoraWeights(found, weights.metadata), math.sqrt(lost / whole) if whole else 0.0


def nearest_of(layer: Layer, weight: Tensor, keep: int | Keep) -> tuple[Pair, float]:
    """The LoRA nearest to what a layer does to a weight, and ‖what is left out‖²; of a T-LoRA, nearest over all times alike."""
    if isinstance(layer, TimeLora):
        mean, spread = layer.mean()
        found, left_out = nearest_to(mean, keep)
        return found, float(left_out) + spread
    exact = layer.adds and layer.rank and layer.rank**2 < min(layer.size)  # then no ΔW need be made
    found, left_out = nearest_to(as_lora(layer, weight), keep) if exact else nearest(difference(layer, weight), keep)
    return found, float(left_out)


def difference(layer: Layer, weight: Tensor, scale: float = 1.0) -> Tensor:
    """W' - W; for kinds that only add, without the rounding of W."""
    if layer.adds:
        return scale * layer.delta(weight.shape)
    return layer.merged(weight, scale).float() - weight.float()


def weight_for(modules: Modules | None, name: str, layer: Layer) -> Tensor:
    """The base's weight under a layer that cannot do without it: DoRA and OFT turn it, LoHa and LoKr do not say its shape.

    Raises:
        AdapterError: no base, or another one.
    """
    if modules is None:
        raise AdapterError(
            "only LoRA can be merged or resized without its base",
            given=f"{layer.kind} in {name}",
            next="give --base, a base that is on this machine",
        )
    return weight_of(modules, name, layer)
