"""(IA)³ as LyCORIS has it: a factor for each output or each input of a layer (Liu et al. 2022, arXiv 2205.05638)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import listed
from adapt.formats.relative import Relative

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Ia3(Relative):
    """W' = W ∘ (1 + v), v along the rows or along the columns. It has no rank and no strength of its own.

    Attributes:
        factors: v, (n,) or (1, n, 1, …).
        on_input: one number: 0: n outputs, else n inputs.
    """

    kind: ClassVar[str] = "ia3"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {"factors": ("weight",) * 2, "on_input": ("on_input",) * 2}
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    factors: Tensor
    on_input: Tensor
    alpha: float = 1.0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        return cls(tensors["factors"], tensors["on_input"])

    @property
    def rank(self) -> int:
        """0: it has none."""
        return 0

    @property
    def scale(self) -> float:
        return 1.0

    @property
    def by_columns(self) -> bool:
        """Whether the factors are those of inputs."""
        return bool(self.on_input.any())

    @property
    def size(self) -> tuple[int, int]:
        """(out, 0) or (0, in): it fits any number of the other side."""
        count = self.factors.numel()
        return (0, count) if self.by_columns else (count, 0)

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and shape[1 if self.by_columns else 0] == self.factors.numel()

    def times(self, scale: float) -> Self:
        return replace(self, factors=self.factors * scale)

    def to(self, dtype: torch.dtype) -> Self:
        return replace(self, factors=self.factors.to(dtype))

    def change(self, weight: Tensor) -> Tensor:
        sides = [1] * weight.ndim
        sides[1 if self.by_columns else 0] = -1
        return weight * self.factors.to(weight).reshape(sides)

    def norm(self) -> Tensor:
        """‖v‖: how far it is from nothing (a scalar)."""
        length: Tensor = self.factors.float().norm()
        return length

    def misfit(self) -> str | None:
        long = [side for side in self.factors.shape if side != 1]
        if self.on_input.numel() != 1 or not self.factors.numel() or len(long) > 1:
            return f"shapes {listed(self.factors, self.on_input)} that are no (IA)³"
        return None

    def rows(self, start: int, stop: int) -> Self:
        """What it does to these rows."""
        return self if self.by_columns else replace(self, factors=self.factors.flatten()[start:stop])
