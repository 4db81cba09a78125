"""LoRA weights as named pairs, whatever file they came from (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """ΔW = alpha / r · up @ down.

    Attributes:
        down: A, (r, in) or (r, in, k, k).
        up: B, (out, r) or (out, r, 1, 1).
        alpha: strength; r means a factor of 1.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def delta(self) -> Tensor:
        """ΔW in fp32, (out, in) or (out, in, k, k)."""
        down, up = self.down.float(), self.up.float()
        product = up.flatten(1) @ down.flatten(1)
        return (self.alpha / self.rank) * product.view(len(up), *down.shape[1:])

    def fault(self) -> str | None:
        """Why these two cannot belong together, or None."""
        if self.down.ndim not in (2, 3, 4, 5) or self.up.ndim != self.down.ndim or self.up.shape[1] != self.rank:
            return f"shapes {tuple(self.down.shape)} and {tuple(self.up.shape)} do not fit"
        if self.rank == 0 or any(side != 1 for side in self.up.shape[2:]):
            return f"shapes {tuple(self.down.shape)} and {tuple(self.up.shape)} are no LoRA"
        if not all(half.float().isfinite().all() for half in (self.down, self.up)):
            return "values that are not finite"
        if not math.isfinite(self.alpha):
            return f"an alpha that is not finite: {self.alpha}"
        return None


@dataclass(frozen=True)
class LoraWeights:
    """Attributes:
    modules: `{"unet": {"mid_block.….to_q": Pair, …}, …}` by diffusers' component and module names.
    metadata: the file's own header entries.
    """

    modules: Mapping[str, Mapping[str, Pair]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self.modules.values())
