"""An adapter of lower rank: what it does to the weights, by singular values."""

from __future__ import annotations

import torch

from adapt.formats import Layer, LoraWeights, Pair
from adapt.formats.exactly import rank_kept
from adapt.formats.factorise import Keep, nearest_to
from adapt.lora.nearest import Modules, each, nearest_of, weight_for


@torch.no_grad()
def resized(weights: LoraWeights, keep: Keep, modules: Modules | None = None) -> tuple[LoraWeights, float]:
    """Each layer as the nearest LoRA of as many singular values as are kept, and ‖what is left out‖ / ‖ΔW‖ over all layers.

    A DoRA stays one: its lengths stay, and ΔW is that of the LoRA inside it. Other kinds become LoRA.

    Args:
        modules: networks of the base by component name; not needed for LoRA and DoRA.

    Raises:
        AdapterError: another kind, and no base; or another base than the adapter's.
    """

    def smaller(name: str, layer: Layer) -> tuple[Layer, float, float]:
        if isinstance(layer, Pair):
            pair, left_out = nearest_to(layer, keep)  # of a DoRA, the LoRA inside it
            lost = float(left_out)
        else:
            pair, lost = nearest_of(layer, weight_for(modules, name, layer), keep)
        return rank_kept(layer, pair), lost, float(pair.norm()) ** 2 + lost

    return each(weights, smaller)
