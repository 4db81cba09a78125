"""LoHa: the elementwise product of two LoRAs (Hyeon-Woo et al. 2022, FedPara, arXiv 2108.06098; LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from adapt.formats.layer import Layer, listed, shaped

if TYPE_CHECKING:
    from torch import Tensor

FACTORS = ("w1_a", "w1_b", "w2_a", "w2_b")


@dataclass(frozen=True)
class LoHa(Layer):
    """ΔW = alpha / r · (w1_a w1_b) ∘ (w2_a w2_b).

    Attributes:
        w1_a, w2_a: (out, r); with cores (r, out).
        w1_b, w2_b: (r, in × kernel); with cores (r, in).
        t1, t2: (r, r, k, k), the cores of a Tucker decomposition of a convolution, or None.
    """

    kind: ClassVar[str] = "loha"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {n: (f"hada_{n}",) * 2 for n in (*FACTORS, "t1", "t2")}
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(FACTORS), frozenset((*FACTORS, "t1", "t2")))
    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    alpha: float
    t1: Tensor | None = None
    t2: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.w1_b.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        if self.t1 is None:
            return int(self.w1_a.shape[0]), int(self.w1_b.shape[1])
        return int(self.w1_a.shape[1]), int(self.w1_b.shape[1]) * prod(self.t1.shape[2:])

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        first, second = _half(self.w1_a, self.w1_b, self.t1), _half(self.w2_a, self.w2_b, self.t2)
        return shaped(self.scale * first * second, shape)

    def misfit(self) -> str | None:
        halves = ((self.w1_a, self.w1_b, self.t1), (self.w2_a, self.w2_b, self.t2))
        if not (
            all(_is_half(*half) for half in halves)
            and self.rank > 0
            and _half_size(*halves[0]) == _half_size(*halves[1])
        ):
            return f"shapes {listed(*self.tensors().values())} that are no LoHa"
        return None


def _is_half(a: Tensor, b: Tensor, core: Tensor | None) -> bool:
    if a.ndim != 2 or b.ndim != 2:
        return False
    if core is None:
        return a.shape[1] == b.shape[0]
    return core.ndim > 2 and tuple(core.shape[:2]) == (a.shape[0], b.shape[0])


def _half_size(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[int, ...]:
    return (a.shape[0], b.shape[1]) if core is None else (a.shape[1], b.shape[1], *core.shape[2:])


def _half(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """(out, in × kernel) of one of the two."""
    a, b = a.float(), b.float()
    return a @ b if core is None else tucker(core.float(), a, b).flatten(1)


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r, r, …), a (r, out), b (r, in) → (out, in, …)."""
    import torch

    return torch.einsum("ij...,ip,jr->pr...", core, a, b)
