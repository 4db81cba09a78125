"""What all rotations of a layer have in common, whichever side they turn and whoever wrote them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from adapt.errors import AdapterError
from adapt.formats.layer import Layer

if TYPE_CHECKING:
    from torch import Tensor


class Rotation(Layer):
    """A kind that turns the weight and adds nothing by itself: no rank, no strength."""

    adds: ClassVar[bool] = False

    @abstractmethod
    def turns(self, scale: float = 1.0) -> Tensor:
        """R of every block (…, b, b), fp32 or wider; `scale` times as far, about: 0 is no turn."""

    @property
    def rank(self) -> int:
        """0: it has none."""
        return 0

    @property
    def scale(self) -> float:
        return 1.0

    def times(self, scale: float) -> Self:
        raise AdapterError(
            f"a {self.kind} turns a weight, and has no strength that a file could say",
            given=f"strength {scale:g}",
            next="strength 1, or --nearest RANK",
        )

    def norm(self) -> Tensor:
        """How far it turns: ‖R - 1‖ over all blocks. What that does to a weight is the weight's to say."""
        import torch

        turns = self.turns()
        length: Tensor = (turns - torch.eye(turns.shape[-1], dtype=turns.dtype, device=turns.device)).norm()
        return length

    def delta(self, shape: Sequence[int] | None = None) -> Tensor:
        raise AdapterError(
            f"a {self.kind} turns a weight and adds nothing by itself",
            given=f"kind {self.kind}",
            next="--nearest RANK --base BASE",
        )


def cayley(skew: Tensor) -> Tensor:
    """(I - Q)(I + Q)⁻¹ of skew-symmetric Q (…, b, b): a rotation; of -Q it is the reverse."""
    import torch

    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)
    found: Tensor = torch.linalg.solve(one + skew, one - skew, left=False)
    return found


def skewed(blocks: Tensor) -> Tensor:
    """B - Bᵀ of every block, in fp32 or wider."""
    import torch

    wide = blocks.to(torch.promote_types(blocks.dtype, torch.float32))
    return wide - wide.mT
