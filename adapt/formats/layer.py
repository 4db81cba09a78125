"""What an adapter does to one layer's weight, whatever kind it is and whatever file it came from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PEFT, KOHYA = 0, 1
"""Whose names: peft's, which diffusers shares, or kohya's, which LyCORIS shares."""


class Layer(ABC):
    """One kind of adapter in one layer: a frozen dataclass of tensors and `alpha`, the strength.

    Attributes:
        kind: its name in settings and files.
        names: field → (peft's name, kohya's name) of each tensor.
        forms: which fields go together; a file with any other set holds a part of something.
        adds: whether W' is W + ΔW whatever W is.
        in_peft: whether peft has layers of this kind.
    """

    kind: ClassVar[str]
    names: ClassVar[Mapping[str, tuple[str, str]]]
    forms: ClassVar[tuple[frozenset[str], ...]]
    adds: ClassVar[bool] = True
    in_peft: ClassVar[bool] = True
    alpha: float

    @property
    @abstractmethod
    def rank(self) -> int:
        """r: ΔW is multiplied with alpha / r."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(out, in × kernel) of the weight that it fits."""

    @abstractmethod
    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        """ΔW in fp32, as (out, in × kernel) or in the shape of the weight."""

    @abstractmethod
    def misfit(self) -> str | None:
        """Why the shapes of its tensors cannot belong together, or None."""

    @classmethod
    def is_kind(cls, tensors: Mapping[str, Tensor]) -> bool:
        """Whether tensors of these fields are of this kind and not of another with the same names."""
        return True

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        """From tensors by field, as this dialect has them.

        Args:
            alpha: None: as much as makes the factor 1, which is what readers take when a file says nothing.
            rank: what the file says of it, where no shape does.
        """
        layer = cls(**tensors, alpha=1.0 if alpha is None else alpha)  # type: ignore[call-arg]
        return replace(layer, alpha=float(layer.rank)) if alpha is None else layer  # type: ignore[type-var]

    def named(self, dialect: int) -> dict[str, Tensor]:
        """Its tensors by this dialect's names."""
        return {self.names[name][dialect]: tensor for name, tensor in self.tensors().items()}

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def tensors(self) -> dict[str, Tensor]:
        """By field, without those that are not there."""
        found = ((name, getattr(self, name)) for name in self.names)
        return {name: tensor for name, tensor in found if tensor is not None}

    def multiplied(self) -> dict[str, Tensor]:
        """Those of its tensors whose product is ΔW."""
        return self.tensors()

    def to(self, dtype: torch.dtype) -> Self:
        """The same in another precision."""
        return replace(self, **{name: tensor.to(dtype) for name, tensor in self.tensors().items()})  # type: ignore[type-var]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether ΔW can be added to a weight of this shape."""
        return self.size == (shape[0], math.prod(shape[1:]))

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        """The weight with the adapter in it, `scale` times; in the weight's precision or fp32, whichever is wider."""
        import torch

        wide = torch.promote_types(weight.dtype, torch.float32)
        added: Tensor = weight.to(wide) + scale * self.delta(weight.shape).to(weight.device)
        return added

    def merge_into(self, weight: Tensor, scale: float, base: Tensor | None = None) -> None:
        """The same in place, rounded once to the weight's precision.

        Args:
            base: what it is added to, and what `weight` held until now does not matter; None: to `weight`.
        """
        weight.copy_(self.merged(weight if base is None else base, scale))

    def times(self, scale: float) -> Self:
        """The layer that does at scale 1 what this one does at `scale`.

        Raises:
            AdapterError: no layer of its kind does.
        """
        return replace(self, alpha=self.alpha * scale)  # type: ignore[type-var]

    def norm(self) -> Tensor:
        """‖ΔW‖, Frobenius (a scalar)."""
        length: Tensor = self.delta().norm()
        return length

    def shortened(self, longest: float) -> Self:
        """The same direction with ‖ΔW‖ ≤ `longest` (kohya's `scale_weight_norms`): as it is, bit for bit, if it is so already, up
        to the rounding of the norm (a sum that processors take in the order that suits the memory).

        ΔW is a product of n tensors, each once: all of them are multiplied with the n-th root of the ratio.
        """
        tensors = self.multiplied()
        ratio = longest / self.norm()
        ratio = ratio.masked_fill(ratio > 1 - 1e-6, 1.0) ** (1 / len(tensors))
        return replace(self, **{name: tensor * ratio.to(tensor) for name, tensor in tensors.items()})  # type: ignore[type-var]

    def equals(self, other: Layer) -> bool:
        """Whether both hold the same numbers; strength to the precision of fp32, in which kohya's files keep it."""
        mine, theirs = self.tensors(), other.tensors()
        same = self.kind == other.kind and mine.keys() == theirs.keys()
        return (
            same and all(mine[n].equal(theirs[n]) for n in mine) and math.isclose(self.scale, other.scale, rel_tol=1e-6)
        )

    def fault(self) -> str | None:
        """Why it cannot be used, or None."""
        if fault := self.misfit():
            return fault
        if not all(finite(tensor) for tensor in self.tensors().values()):
            return "values that are not finite"
        if not math.isfinite(self.alpha):
            return f"an alpha that is not finite: {self.alpha}"
        return None


def shaped(delta: Tensor, shape: Sequence[int] | None) -> Tensor:
    """(out, in × kernel) in the shape of a weight, if there is one to follow."""
    return delta if shape is None else delta.reshape(tuple(shape))


def finite(tensor: Tensor) -> bool:
    """Whether all its numbers are finite: the smallest and the largest say so, and need no memory of its size."""
    if not tensor.numel():
        return True
    smallest, largest = (tensor if tensor.element_size() > 1 else tensor.float()).aminmax()
    return math.isfinite(smallest) and math.isfinite(largest)


def listed(*tensors: Tensor | None) -> str:
    """Their shapes, for messages."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors if tensor is not None)
