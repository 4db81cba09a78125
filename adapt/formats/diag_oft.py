"""OFT as kohya and LyCORIS have it: a rotation of a layer's outputs in blocks (Qiu et al. 2023, arXiv 2306.07280), and BOFT,
several such rotations between shuffles (Liu et al. 2023, arXiv 2311.06243). peft's OFT and BOFT turn inputs: another thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import listed
from adapt.formats.relative import Relative
from adapt.formats.rotation import Rotation, cayley, skewed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DiagOft(Relative, Rotation):
    """W₁ = rescale · Rᵀ W, R = (I + Q)(I - Q)⁻¹ in blocks along the diagonal, Q = B - Bᵀ.

    The file's alpha is a bound: ‖Q‖ ≤ alpha · out, by which Q is shrunk when it is read. (ComfyUI forgets the factor `out`.) So
    alpha is written as a bound that changes nothing for any of them.

    Attributes:
        blocks: B, (blocks, b, b), b outputs each.
        rescale: lengths of output rows, (out, 1, …), or None.
        alpha: at least ‖Q‖.
    """

    kind: ClassVar[str] = "diag-oft"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        n: (e, e) for n, e in (("blocks", "oft_blocks"), ("rescale", "rescale"))
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(("blocks",)), frozenset(names))
    blocks: Tensor
    alpha: float
    rescale: Tensor | None = None

    @classmethod
    def is_kind(cls, tensors: Mapping[str, Tensor]) -> bool:
        return tensors["blocks"].ndim == 3

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        draft = cls(tensors["blocks"], 1.0 if alpha is None else alpha, tensors.get("rescale"))
        if draft.misfit() or not math.isfinite(draft.alpha):
            return draft
        size = float(skewed(draft.blocks).norm())
        bound = draft.alpha * draft.size[0]
        if alpha is None or not 0 < bound < size:
            return cls(draft.blocks, _above(size), draft.rescale)
        return cls(draft.blocks.float() * (bound / size), _above(bound), draft.rescale)

    @property
    def size(self) -> tuple[int, int]:
        """(out, 0): it fits any number of inputs."""
        return self.blocks.shape[-3] * self.blocks.shape[-1], 0

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and shape[0] == self.size[0]

    def turned(self, weight: Tensor) -> Tensor:
        """Rᵀ W."""
        import torch

        turns = self.turns().to(weight)
        rows = weight.reshape(*turns.shape[:2], -1)  # (blocks, b, in × kernel)
        return torch.einsum("knm,kni->kmi", turns, rows).reshape(weight.shape)

    def change(self, weight: Tensor) -> Tensor:
        turned = self.turned(weight)
        return (turned if self.rescale is None else self.lengths(weight) * turned) - weight

    def lengths(self, weight: Tensor) -> Tensor:
        """`rescale` against the weight's rows."""
        assert self.rescale is not None, "asked only where it is there"
        return self.rescale.to(weight).reshape(-1, *[1] * (weight.ndim - 1))

    def turns(self, scale: float = 1.0) -> Tensor:
        return cayley(-scale * skewed(self.blocks))

    def norm(self) -> Tensor:
        """‖R - 1‖ and ‖rescale - 1‖ together: how far it is from nothing (a scalar)."""
        far = super().norm()
        return far if self.rescale is None else (far.square() + (self.rescale.to(far) - 1).square().sum()).sqrt()

    def misfit(self) -> str | None:
        wrong = f"shapes {listed(self.blocks, self.rescale)} that are no {self.kind}"
        if self.blocks.shape[-1] != self.blocks.shape[-2] or not self.blocks.numel():
            return wrong
        if self.rescale is not None and (
            self.rescale.ndim < 1 or tuple(self.rescale.shape) != (self.size[0], *[1] * (self.rescale.ndim - 1))
        ):
            return wrong
        return None

    def fault(self) -> str | None:
        return super().fault() or (None if skewed(self.blocks).norm().isfinite() else "values that are too large")


def _above(size: float) -> float:
    """A whole number that no rounding brings below `size`."""
    return float(math.ceil(size) + 1) if math.isfinite(size) else 1.0


@dataclass(frozen=True)
class DiagBoft(DiagOft):
    """W₁ = rescale · (product of rotations) W: rotation i turns blocks of outputs that stand 2^i · b / 2 apart.

    As ComfyUI and LyCORIS's `bypass_forward` have it; LyCORIS's own merge of linear layers turns another axis.

    Attributes:
        blocks: (rotations, blocks, b, b), b even.
    """

    kind: ClassVar[str] = "lycoris-boft"

    @classmethod
    def is_kind(cls, tensors: Mapping[str, Tensor]) -> bool:
        return tensors["blocks"].ndim == 4

    def turned(self, weight: Tensor) -> Tensor:
        import torch

        b = self.blocks.shape[-1]
        rows = weight.reshape(len(weight), -1)
        for number, turns in enumerate(self.turns().to(weight)):  # (blocks, b, b)
            apart = 2**number * b // 2
            near = rows.reshape(-1, 2, apart, rows.shape[1]).transpose(1, 2).reshape(len(turns), b, -1)
            near = torch.einsum("kij,kjn->kin", turns, near)
            rows = near.reshape(-1, apart, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
        return rows.reshape(weight.shape)

    def misfit(self) -> str | None:
        if fault := super().misfit():
            return fault
        furthest = 2 ** (len(self.blocks) - 1) * self.blocks.shape[-1]
        if self.blocks.shape[-1] % 2 or self.size[0] % furthest:
            return f"shapes {listed(self.blocks)} that are no {self.kind}"
        return None
