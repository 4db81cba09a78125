"""OFT: a rotation of a layer's inputs (Qiu et al. 2023, arXiv 2306.07280; in blocks of inputs, as peft has it)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import listed
from adapt.formats.rotation import Rotation, cayley

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Oft(Rotation):
    """W' = W Rᵀ with R orthogonal, in blocks along the diagonal: R = (I - Q)(I + Q)⁻¹ of a skew-symmetric Q (Cayley).

    Attributes:
        rotation: Q above its diagonal, row by row: (blocks, b (b - 1) / 2).
        alpha: 1; a rotation has no strength of that kind.
    """

    kind: ClassVar[str] = "oft"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {"rotation": ("oft_R.weight", "oft_R.weight")}
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    rotation: Tensor
    alpha: float = 1.0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        return cls(tensors["rotation"])

    @property
    def block(self) -> int:
        """b, inputs that are rotated together."""
        return (1 + math.isqrt(1 + 8 * self.rotation.shape[1])) // 2

    @property
    def size(self) -> tuple[int, int]:
        """(0, in): it fits any number of outputs."""
        return 0, len(self.rotation) * self.block

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == 2 and shape[1] == self.size[1]

    def turns(self, scale: float = 1.0) -> Tensor:
        """R of every block (blocks, b, b), fp32 or wider; `scale` times as far, about: 0 is no turn."""
        import torch

        wide = torch.promote_types(self.rotation.dtype, torch.float32)
        skew = torch.zeros(len(self.rotation), self.block, self.block, dtype=wide, device=self.rotation.device)
        rows, columns = torch.triu_indices(self.block, self.block, 1)
        skew[:, rows, columns] = scale * self.rotation.to(wide)
        skew = skew - skew.transpose(1, 2)
        return cayley(skew)

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        import torch

        wide = torch.promote_types(weight.dtype, torch.float32)
        turns = self.turns(scale).to(weight.device, wide)
        blocks = weight.to(wide).view(len(weight), *turns.shape[:2])  # (out, blocks, b)
        return torch.einsum("okb,kcb->okc", blocks, turns).flatten(1)

    def misfit(self) -> str | None:
        if self.rotation.ndim != 2 or self.block * (self.block - 1) // 2 != self.rotation.shape[1] or self.block < 2:
            return f"shape {listed(self.rotation)} that is no rotation"
        return None
