"""PiSSA: training the principal part of a weight itself (Meng et al. 2024, arXiv 2404.02948, eq. 2-4); and what it shares with
other starts that take a part out of the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapt.errors import SettingsError
from adapt.formats import Pair
from adapt.lora.kinds import NAME


@dataclass(frozen=True)
class Principal:
    """What was taken out of one layer's weight: W = rest + alpha / r · up @ down.

    Attributes:
        weight: the layer's.
        original: W, bit for bit.
        rest: what stands in the layer while it trains.
        start: the principal part, from which A and B start.
    """

    weight: nn.Parameter
    original: Tensor
    rest: Tensor
    start: Pair

    def relative(self, now: Pair) -> Pair:
        """The plain LoRA of rank 2 r that says, from the original W on, what A and B have become:
        alpha / r · (B A - B₀ A₀) = 2 alpha / 2 r · [B, -B₀] [A; A₀]."""
        down = torch.cat([now.down, self.start.down.to(now.down)])
        return Pair(down, torch.cat([now.up, -self.start.up.to(now.up)], dim=1), 2 * now.alpha)


@torch.no_grad()
def take_out(name: str, layer: Any, alpha: float, factors: Callable[[str, Any], tuple[Tensor, Tensor]]) -> Principal:
    """Starts A and B of one of peft's LoRA layers as a part of its weight and leaves the rest in it.

    Convolutions are taken as matrices (out, in × kernel). Where there are fewer factors than r, the surplus starts as in LoRA: A
    as it is, B from 0.

    Args:
        alpha: of the factor alpha / r.
        factors: what to take: A (k, in × kernel) and B (out, k), k ≤ r; the part is alpha / r · B A.

    Raises:
        SettingsError: a weight in half precision: the rest would be rounded, and the base with it.
    """
    weight = layer.get_base_layer().weight
    if weight.dtype not in (torch.float32, torch.float64):
        raise SettingsError(
            "this start splits the base's weights, and in half precision the parts do not add up again",
            given=f"{name}: {weight.dtype}",
            allowed="base_precision=fp32",
        )
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    own_down, own_up = factors(name, layer)
    down.flatten(1)[: len(own_down)] = own_down
    up.flatten(1)[:, : len(own_down)] = own_up
    start = Pair(down.detach().clone(), up.detach().clone(), alpha)
    rest = weight - alpha / len(down) * (up.flatten(1) @ down.flatten(1)).view_as(weight)
    original, weight.data = weight.data, rest
    return Principal(weight, original, rest, start)


def largest(name: str, layer: Any) -> tuple[Tensor, Tensor]:
    """PiSSA: the r largest singular values of the weight, shared evenly between A and B."""
    weight, rank = layer.get_base_layer().weight, len(layer.lora_A[NAME].weight)
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = (s[:rank] / layer.scaling[NAME]).sqrt()
    return root[:, None] * v[: len(root)], u[:, : len(root)] * root
