"""How much an adapter changes each weight of a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from adapt.formats import Layer
from adapt.lora.applied import weight_of
from adapt.lora.text_encoders import inner


class LayerChange(NamedTuple):
    """Attributes:
    name: `<component>.<layer>`.
    norm: ‖ΔW‖, Frobenius, at the scale that it is drawn with.
    relative: ‖ΔW‖ / ‖W‖.
    """

    name: str
    norm: float
    relative: float


STAGES = (
    "conv_in",
    "time_embedding",
    "add_embedding",
    "down_blocks",
    "mid_block",
    "up_blocks",
    "conv_norm_out",
    "conv_out",
)
"""Of a UNet, as data go through them; it names its middle last."""


def _order(modules: Mapping[str, nn.Module]) -> Callable[[str], tuple[int, int, int]]:
    """Layers by component, stage, and the network's own order."""
    names = [f"{part}.{name}" for part, module in modules.items() for name, _ in inner(module).named_modules()]
    places = {name: number for number, name in enumerate(names)}

    def order(name: str) -> tuple[int, int, int]:
        component, _, inside = name.partition(".")
        first = inside.partition(".")[0]
        stage = STAGES.index(first) if first in STAGES else -1
        return list(modules).index(component), stage, places.get(name, len(places))

    return order


@torch.no_grad()
def changes(modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], scale: float) -> list[LayerChange]:
    """One a layer, in the network's order. To be called on the bare base.

    Args:
        modules: networks by component name.
        layers: by `<component>.<layer>`; of any kind: ΔW is what the weight becomes, less what it is.

    Raises:
        AdapterError: made for another base.
    """
    found = []
    for name in sorted(layers, key=_order(modules)):
        weight = weight_of(modules, name, layers[name]).detach().float()
        norm = float((layers[name].merged(weight, scale) - weight).norm())
        found.append(LayerChange(name, norm, norm / max(float(weight.norm()), 1e-30)))
    return found
