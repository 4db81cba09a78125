"""LoRA weights as named pairs, whatever file they came from (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import Layer, listed

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 19
"""Numbers of a weight in half precision that are added to in fp32 at a time: 2 MB, what a core keeps beside it."""


@dataclass(frozen=True)
class Pair(Layer):
    """LoRA: ΔW = alpha / r · up @ down.

    Attributes:
        down: A, (r, in) or (r, in, k, k).
        up: B, (out, r) or (out, r, 1, 1).
        alpha: strength; r means a factor of 1.
    """

    kind: ClassVar[str] = "lora"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        "down": ("lora_A.weight", "lora_down.weight"),
        "up": ("lora_B.weight", "lora_up.weight"),
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        return len(self.up), self.down[0].numel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it fits."""
        return (len(self.up), *self.down.shape[1:])

    def fits(self, shape: Sequence[int]) -> bool:
        return self.shape == tuple(shape)

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        """ΔW in fp32, (out, in) or (out, in, k, k)."""
        down, up = self.down.float(), self.up.float()
        product = up.flatten(1) @ down.flatten(1)
        return self.scale * product.view(self.shape)

    def merge_into(self, weight: Tensor, scale: float, base: Tensor | None = None) -> None:
        """In fp32 without a copy of the weight's size: it is the memory, not the product, that takes the time."""
        import torch

        base = weight if base is None else base
        whole = weight.is_contiguous() and base.is_contiguous()
        if self.kind != "lora" or weight.dtype == torch.float64 or not whole:
            super().merge_into(weight, scale, base)
            return
        up, down = (half.to(weight.device, torch.float32).flatten(1) for half in (self.up, self.down))
        into, start = weight.view(len(weight), -1), base.view(len(weight), -1)
        if weight.dtype == torch.float32:
            torch.addmm(start, up, down, alpha=scale * self.scale, out=into)
        else:
            add_in_pieces(start, up, down, scale * self.scale, into)

    def norm(self) -> Tensor:
        """‖B A‖² = Σ (BᵀB ∘ AAᵀ): r × r numbers instead of all of ΔW. A ΔW that is tiny beside ‖B‖ ‖A‖, because its components
        cancel, is seen only down to about 3e-4 of them."""
        down, up = self.down.float().flatten(1), self.up.float().flatten(1)
        return abs(self.scale) * ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt()

    def with_alpha(self, alpha: float) -> Self:
        """The same ΔW at another alpha, the difference shared by A and B: bit for bit where it is a power of two, there and back.
        Sharing it keeps small numbers within half precision.

        Args:
            alpha: > 0.
        """
        factor = self.alpha / alpha
        if factor in (0, 1):
            return self
        share = 2.0 ** round(math.log2(abs(factor)) / 2)
        return replace(self, down=self.down * share, up=self.up * (factor / share), alpha=alpha)

    def misfit(self) -> str | None:
        if self.down.ndim not in (2, 3, 4, 5) or self.up.ndim != self.down.ndim or self.up.shape[1] != self.rank:
            return f"shapes {listed(self.down, self.up)} that do not fit"
        if self.rank == 0 or any(side != 1 for side in self.up.shape[2:]):
            return f"shapes {listed(self.down, self.up)} that are no LoRA"
        return None


def add_in_pieces(base: Tensor, up: Tensor, down: Tensor, factor: float, into: Tensor) -> None:
    """base + factor · up @ down, for base and `into` (out, in) in half precision: in fp32, rounded once, some rows at a time."""
    import torch

    out, inside = base.shape
    rows = max(1, PIECE // inside) if base.device.type == "cpu" else out
    wide = torch.empty(min(rows, out), inside, device=base.device, dtype=torch.float32)
    for first in range(0, out, rows):
        some = slice(first, first + rows)
        sums = wide[: len(base[some])].copy_(base[some]).addmm_(up[some], down, alpha=factor)
        into[some].copy_(sums)


@dataclass(frozen=True)
class LoraWeights:
    """Attributes:
    modules: `{"unet": {"mid_block.….to_q": Pair, …}, …}` by diffusers' component and module names.
    metadata: the file's own header entries.
    """

    modules: Mapping[str, Mapping[str, Layer]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(layers) for layers in self.modules.values())

    @property
    def kinds(self) -> set[str]:
        """`lora`, `dora`, `loha`, `lokr`: what it holds."""
        return {layer.kind for layers in self.modules.values() for layer in layers.values()}

    def equals(self, other: LoraWeights) -> bool:
        """Whether both hold the same layers with the same numbers; header entries do not matter."""
        mine, theirs = (
            {(c, m): layer for c, layers in weights.modules.items() for m, layer in layers.items()}
            for weights in (self, other)
        )
        return mine.keys() == theirs.keys() and all(layer.equals(theirs[key]) for key, layer in mine.items())
