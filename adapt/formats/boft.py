"""BOFT: a rotation of a layer's inputs as a product of sparse ones, and lengths of its outputs (Liu et al. 2024,
arXiv 2311.06243; as peft has it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import listed
from adapt.formats.rotation import Rotation, cayley

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Boft(Rotation):
    """W' = s ∘ W (Rₘ … R₁)ᵀ: each Rᵢ rotates blocks of inputs, and from factor to factor the blocks are woven anew, so that
    m factors reach 2ᵐ⁻¹ times as far as one.

    Attributes:
        rotation: (m, blocks, b, b); R = (I - Q)(I + Q)⁻¹ of its skew-symmetric part Q (Cayley).
        lengths: s, (out, 1).
        alpha: 1; a rotation has no strength of that kind.
    """

    kind: ClassVar[str] = "boft"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        "rotation": ("boft_R", "boft_R"),
        "lengths": ("boft_s", "boft_s"),
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    rotation: Tensor
    lengths: Tensor
    alpha: float = 1.0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        return cls(tensors["rotation"], tensors["lengths"])

    @property
    def factors(self) -> int:
        """m."""
        return int(self.rotation.shape[0])

    @property
    def block(self) -> int:
        """b, inputs that a factor rotates together."""
        return int(self.rotation.shape[-1])

    @property
    def size(self) -> tuple[int, int]:
        return len(self.lengths), int(self.rotation.shape[1]) * self.block

    def fits(self, shape: Sequence[int]) -> bool:
        return tuple(shape) == self.size

    def turns(self, scale: float = 1.0) -> Tensor:
        """R of every block (m, blocks, b, b), fp32 or wider; `scale` times as far, about: 0 is no turn."""
        import torch

        wide = torch.promote_types(self.rotation.dtype, torch.float32)
        skew = scale * (self.rotation - self.rotation.mT).to(wide) / 2
        return cayley(skew)

    def woven(self, number: int) -> Tensor:
        """Where the inputs of factor `number` (from 0) stand, (in,): in runs of half a block, the even ones of each stretch of
        2ⁿ blocks before the odd ones."""
        import torch

        places = torch.arange(self.size[1])
        if number == 0:
            return places
        runs = places.view(-1, 2 ** (number + 1), self.block // 2)
        return torch.cat([runs[:, 0::2], runs[:, 1::2]], 1).flatten()

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        import torch

        wide = torch.promote_types(weight.dtype, torch.float32)
        turned = weight.to(wide)
        for number, turns in enumerate(self.turns(scale).to(weight.device, wide)):
            places = self.woven(number).to(weight.device)
            blocks = turned[:, places.argsort()].view(len(weight), *turns.shape[:2])  # (out, blocks, b)
            turned = torch.einsum("okb,kcb->okc", blocks, turns).flatten(1)[:, places]
        return turned * (1 + scale * (self.lengths.to(weight.device, wide) - 1))

    def misfit(self) -> str | None:
        shape, lengths = self.rotation.shape, self.lengths.shape
        if len(shape) != 4 or shape[2] != shape[3] or 0 in shape or len(lengths) != 2 or lengths[1] != 1:
            return f"shapes {listed(self.rotation, self.lengths)} that are no BOFT"
        reach = 2 ** (self.factors - 1)
        if self.factors > 1 and (self.block % 2 or shape[1] % reach):
            return f"{self.factors} factors of {shape[1]} blocks of {self.block}: they cannot be woven"
        return None
