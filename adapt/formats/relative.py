"""Kinds of adapter whose change is computed from the weight itself, in a straight line: at half the scale, half the change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from adapt.errors import AdapterError
from adapt.formats.layer import Layer

if TYPE_CHECKING:
    from torch import Tensor


class Relative(Layer):
    """W' = W + scale · change(W). Neither diffusers nor peft has layers of these kinds."""

    adds: ClassVar[bool] = False
    in_peft: ClassVar[bool] = False

    @abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """W' - W at scale 1, in the shape and precision of `weight`, which is fp32 or wider."""

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        import torch

        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return wide + scale * self.change(wide)

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        raise AdapterError(
            f"what a {self.kind} does depends on the weight",
            given=f"kind {self.kind}",
            next="--nearest RANK --base BASE",
        )
