"""LoKr: a Kronecker product (Edalati et al. 2022, KronA, arXiv 2212.10650; LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import KOHYA, Layer, listed, shaped
from adapt.formats.loha import tucker

if TYPE_CHECKING:
    from torch import Tensor

LEFT = ({"w1"}, {"w1_a", "w1_b"})
RIGHT = ({"w2"}, {"w2_a", "w2_b"}, {"t2", "w2_a", "w2_b"})


@dataclass(frozen=True)
class LoKr(Layer):
    """ΔW = alpha / r · w1 ⊗ w2; each factor is whole, or a product of two matrices of rank r.

    Attributes:
        w1: (a, c), or w1_a (a, r) and w1_b (r, c).
        w2: (b, d) or (b, d, k, k), or w2_a (b, r) and w2_b (r, d × kernel), or with a core t2 (r, r, k, k): w2_a (r, b),
            w2_b (r, d). The weight is (a b, c d, …).
        given_rank: r where both factors are whole and no shape tells it; 0: the factor is 1, whatever alpha is.
    """

    kind: ClassVar[str] = "lokr"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        n: (f"lokr_{n}",) * 2 for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = tuple(frozenset(a | b) for a in LEFT for b in RIGHT)
    alpha: float
    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    given_rank: int = 0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        layer = cls(**tensors, alpha=1.0 if alpha is None else alpha, given_rank=rank)
        if layer.whole and (dialect == KOHYA or alpha is None):
            return replace(layer, alpha=1.0, given_rank=0)
        return replace(layer, alpha=float(layer.rank)) if alpha is None else layer

    @property
    def whole(self) -> bool:
        """Whether both factors are: then kohya's dialect knows no alpha."""
        return self.w1 is not None and self.w2 is not None

    @property
    def rank(self) -> int:
        told = self.w2_b if self.w2_b is not None else self.w1_b
        return int(told.shape[0]) if told is not None else self.given_rank

    @property
    def scale(self) -> float:
        """alpha / r; 1 where both factors are whole and nobody gave a rank."""
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def left(self) -> Tensor:
        """w1 (a, c) in fp32."""
        return self.w1.float() if self.w1 is not None else _there(self.w1_a).float() @ _there(self.w1_b).float()

    @property
    def right(self) -> Tensor:
        """w2 (b, d × kernel) in fp32."""
        if self.w2 is not None:
            return self.w2.float().flatten(1)
        a, b = _there(self.w2_a).float(), _there(self.w2_b).float()
        return a @ b.flatten(1) if self.t2 is None else tucker(self.t2.float(), a, b).flatten(1)

    @property
    def factors(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((a, c), (b, d × kernel)): the shapes of w1 and w2."""
        first, second = (self.w1, self.w1) if self.w1 is not None else (_there(self.w1_a), _there(self.w1_b))
        return (first.shape[0], second.shape[1]), self._right_shape()

    def _right_shape(self) -> tuple[int, int]:
        if self.w2 is not None:
            return self.w2.shape[0], prod(self.w2.shape[1:])
        a, b = _there(self.w2_a), _there(self.w2_b)
        if self.t2 is not None:
            return a.shape[1], b.shape[1] * prod(self.t2.shape[2:])
        return a.shape[0], prod(b.shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        (a, c), (b, d) = self.factors
        return a * b, c * d

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        import torch

        product: Tensor = torch.kron(self.left, self.right)
        return shaped(self.scale * product, shape)

    def norm(self) -> Tensor:
        """‖w1 ⊗ w2‖ = ‖w1‖ ‖w2‖."""
        length: Tensor = abs(self.scale) * self.left.norm() * self.right.norm()
        return length

    def times(self, scale: float) -> Self:
        if self.rank or self.w1 is None:
            return super().times(scale)
        return replace(self, w1=self.w1 * scale)

    def with_scale_inside(self) -> LoKr:
        """The same ΔW where alpha cannot be said: with two whole factors, LyCORIS and ComfyUI take a scale of 1."""
        if not self.whole or self.scale == 1 or self.w1 is None:
            return self
        return replace(self, w1=self.w1 * self.scale, alpha=1.0, given_rank=0)

    def misfit(self) -> str | None:
        wrong = f"shapes {listed(*self.tensors().values())} that are no LoKr"
        flat = (self.w1, self.w1_a, self.w1_b, self.w2_a)
        if any(tensor.ndim < 2 or not tensor.numel() for tensor in self.tensors().values()):
            return wrong
        if any(tensor is not None and tensor.ndim != 2 for tensor in flat):
            return wrong
        if self.w1_a is not None and self.w1_b is not None and self.w1_a.shape[1] != self.w1_b.shape[0]:
            return wrong
        if self.w2_a is None or self.w2_b is None:
            return None
        if self.t2 is not None:
            return None if tuple(self.t2.shape[:2]) == (self.w2_a.shape[0], self.w2_b.shape[0]) else wrong
        return None if self.w2_a.shape[1] == self.w2_b.shape[0] else wrong


def _there(tensor: Tensor | None) -> Tensor:
    """What `forms` has judged to be there."""
    assert tensor is not None
    return tensor
