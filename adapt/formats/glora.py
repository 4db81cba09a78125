"""GLoRA: a LoRA, and one that is multiplied with the weight (Chavan et al. 2023, arXiv 2306.07967, as LyCORIS has it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import listed
from adapt.formats.lora_weights import Pair
from adapt.formats.relative import Relative

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GLora(Relative):
    """W' = W + alpha / r · (W A₁ A₂ + B₁ B₂). Given the weight it is a LoRA, exactly: `pair`.

    Attributes:
        a1: (in, r) or (in, r, 1, …).
        a2: (r, in) likewise.
        b1: (out, r) likewise.
        b2: (r, in) or (r, in, k, k).
    """

    kind: ClassVar[str] = "glora"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {n: (f"{n}.weight",) * 2 for n in ("a1", "a2", "b1", "b2")}
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        """Older files of LyCORIS have both products the other way round."""
        found = super().of(tensors, alpha, dialect=dialect, rank=rank)
        older = super().of(
            {new: tensors[old] for new, old in (("a1", "a2"), ("a2", "a1"), ("b1", "b2"), ("b2", "b1"))},
            alpha,
            dialect=dialect,
        )
        return older if found.misfit() and not older.misfit() else found

    @property
    def rank(self) -> int:
        return int(self.b2.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it fits."""
        return (len(self.b1), *self.b2.shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        return len(self.b1), self.b2[0].numel()

    def change(self, weight: Tensor) -> Tensor:
        return self.pair(weight).delta(weight.shape).to(weight)

    def pair(self, weight: Tensor) -> Pair:
        """The LoRA that does the same to this weight, of rank 2 r; of a convolution with k × k places, of rank r (k² + 1)."""
        import torch

        a1, a2 = (half.flatten(1).to(weight) for half in (self.a1, self.a2))
        b1, b2 = (half.flatten(1).to(weight) for half in (self.b1, self.b2))
        through = torch.einsum("oik,ir->ork", weight.reshape(*weight.shape[:2], -1), a1)  # W A₁, (out, r, places)
        places = torch.eye(through.shape[2]).to(weight)
        under = torch.einsum("ri,kl->rkil", a2, places).reshape(-1, b2.shape[1])  # A₂ at each place by itself
        down, up = torch.cat([under, b2]), torch.cat([through.flatten(1), b1], 1)
        ones = [1] * (weight.ndim - 2)
        alpha = self.scale * len(down)
        return Pair(down.reshape(len(down), *weight.shape[1:]), up.reshape(*up.shape, *ones), alpha)

    def norm(self) -> Tensor:
        """√(‖A₁ A₂‖² + ‖B₁ B₂‖²) · alpha / r: how far it is from nothing (a scalar)."""
        halves = [half.float().flatten(1) for half in (self.a1, self.a2, self.b1, self.b2)]
        squares = (halves[0] @ halves[1]).square().sum() + (halves[2] @ halves[3]).square().sum()
        return abs(self.scale) * squares.sqrt()

    def misfit(self) -> str | None:
        wrong = f"shapes {listed(self.a1, self.a2, self.b1, self.b2)} that are no GLoRA"
        if any(tensor.ndim < 2 or not tensor.numel() for tensor in self.tensors().values()):
            return wrong
        if any(side != 1 for tensor in (self.a1, self.a2, self.b1) for side in tensor.shape[2:]):
            return wrong
        ranks = {self.a1.shape[1], self.a2.shape[0], self.b1.shape[1], self.b2.shape[0]}
        return wrong if len(ranks) > 1 or len({len(self.a1), self.a2.shape[1], self.b2.shape[1]}) > 1 else None
