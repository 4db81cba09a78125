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

    def equals(self, other: Pair) -> bool:
        """Whether both hold the same numbers; alpha to the precision of fp32, in which kohya's files keep it."""
        same = self.down.equal(other.down) and self.up.equal(other.up)
        return same and abs(self.alpha - other.alpha) <= 1e-6 * abs(self.alpha)

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

    def equals(self, other: LoraWeights) -> bool:
        """Whether both hold the same layers with the same numbers; header entries do not matter."""
        mine, theirs = (
            {(c, m): pair for c, pairs in weights.modules.items() for m, pair in pairs.items()}
            for weights in (self, other)
        )
        return mine.keys() == theirs.keys() and all(pair.equals(theirs[key]) for key, pair in mine.items())
