"""DoRA: a LoRA that turns the weight, and lengths of their own (Liu et al. 2024, arXiv 2402.09353, eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.formats.layer import PEFT, listed
from adapt.formats.lora_weights import Pair

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dora(Pair):
    """W' = m · (W + ΔW) / ‖W + ΔW‖, ΔW = alpha / r · up @ down.

    The norm is of each output row (peft, diffusers, LyCORIS with `wd_on_output`) or of each input column (older LyCORIS):
    which one is told by the shape of m. A scale s stands before ΔW, as in peft: W + s ΔW is turned, and its lengths are m
    at any scale, so that scale 0 is not quite the base unless m is its norms. (ComfyUI goes from W to W' in a straight line.)

    Attributes:
        magnitude: m, (out, 1, …) for rows or (1, in, 1, …) for columns, with as many dimensions as the weight.
    """

    kind: ClassVar[str] = "dora"
    names: ClassVar[Mapping[str, tuple[str, str]]] = {
        **Pair.names,
        "magnitude": ("lora_magnitude_vector", "dora_scale"),
    }
    forms: ClassVar[tuple[frozenset[str], ...]] = (frozenset(names),)
    adds: ClassVar[bool] = False
    magnitude: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], alpha: float | None, *, dialect: int, rank: int = 0) -> Self:
        if dialect == PEFT:
            lengths = tensors["magnitude"].reshape(-1, *[1] * (tensors["down"].ndim - 1))
            tensors = {**tensors, "magnitude": lengths}
        return super().of(tensors, alpha, dialect=dialect, rank=rank)

    def named(self, dialect: int) -> dict[str, Tensor]:
        """peft keeps (out,), or (1, out, 1, 1) for a convolution; it knows rows only."""
        found = super().named(dialect)
        if dialect == PEFT:
            lengths = self.magnitude
            found["lora_magnitude_vector"] = lengths.flatten() if lengths.ndim == 2 else lengths.transpose(0, 1)
        return found

    @property
    def by_rows(self) -> bool:
        """Whether the lengths are those of output rows."""
        return len(self.magnitude) == len(self.up)

    def multiplied(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors().items() if name != "magnitude"}

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        import torch

        turned = super().merged(weight, scale)
        kept = 0 if self.by_rows else 1
        others = tuple(axis for axis in range(turned.ndim) if axis != kept)
        set_to: Tensor = self.magnitude.to(turned) / torch.linalg.vector_norm(turned, dim=others, keepdim=True)
        return turned * set_to

    def misfit(self) -> str | None:
        if fault := super().misfit():
            return fault
        rows, columns = ((n, 1) if k == 0 else (1, n) for k, n in enumerate(self.shape[:2]))
        ones = (1,) * (len(self.shape) - 2)
        if tuple(self.magnitude.shape) not in ((*rows, *ones), (*columns, *ones)):
            return f"shapes {listed(self.up, self.down, self.magnitude)} that are no DoRA"
        return None
