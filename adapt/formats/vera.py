"""VeRA: two vectors a layer between two random matrices that all layers share (Kopiczko et al. 2024, arXiv 2310.11454)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import Layer, listed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARED = ("vera_A", "vera_B")
"""Tensors that a file has once for all layers of a network."""


@dataclass(frozen=True)
class Vera(Layer):
    """ΔW = diag(b) B diag(d) A, of A the first columns and of B the first rows, as many as the layer has.

    Attributes:
        outs: b, (out,); 0 at the start.
        ranks: d, (r,).
        down: A, (r, widest in), frozen and the same in all layers.
        up: B, (widest out, r), likewise.
        alpha: 1; d is its strength.
    """

    kind: ClassVar[str] = "vera"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        "outs": ("vera_lambda_b", "vera_lambda_b"),
        "ranks": ("vera_lambda_d", "vera_lambda_d"),
        "down": ("vera_A", "vera_A"),
        "up": ("vera_B", "vera_B"),
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    outs: Tensor
    ranks: Tensor
    down: Tensor
    up: Tensor
    alpha: float = 1.0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        return cls(tensors["outs"], tensors["ranks"], tensors["down"], tensors["up"])

    @property
    def rank(self) -> int:
        return len(self.ranks)

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def size(self) -> tuple[int, int]:
        """(out, the widest in): it fits any layer that is no wider."""
        return len(self.outs), int(self.down.shape[1])

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == 2 and shape[0] == self.size[0] and shape[1] <= self.size[1]

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        out, width = self.size if shape is None else shape
        left = self.outs.float()[:, None] * self.up[:out].float()
        return left @ (self.ranks.float()[:, None] * self.down[:, :width].float())

    def times(self, scale: float) -> Self:
        return replace(self, outs=self.outs * scale)

    def to(self, dtype: torch.dtype) -> Self:
        """The vectors in another precision; the matrices are everybody's."""
        return replace(self, outs=self.outs.to(dtype), ranks=self.ranks.to(dtype))

    def misfit(self) -> str | None:
        tensors = (self.outs, self.ranks, self.down, self.up)
        if [t.ndim for t in tensors] != [1, 1, 2, 2] or not self.rank or len(self.outs) > len(self.up):
            return f"shapes {listed(*tensors)} that are no VeRA"
        if not len(self.down) == self.up.shape[1] == self.rank:
            return f"shapes {listed(*tensors)} of different ranks"
        return None


def of_network(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """What all layers of a network share, by peft's names; empty for other kinds."""
    first = next((layer for layer in layers.values() if isinstance(layer, Vera)), None)
    return {} if first is None else dict(zip(SHARED, (first.down, first.up), strict=True))
