"""One of several denoisers in training: dropout and T-LoRA's components are those of the rows that it predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from adapt.lora.dropout import Dice


@dataclass(frozen=True)
class OwnRows:
    """To be told t (B,) before each prediction.

    Attributes:
        dice: of the adapter in this denoiser; they stay as they are until the next prediction, so that checkpointing computes
            the same again.
        takes: times (B,) → which rows are its own (B,), bool.
    """

    dice: Dice
    takes: Callable[[Tensor], Tensor]

    def __call__(self, t: Tensor) -> None:
        own = self.takes(t)
        self.dice.narrow(own.tolist())
        if self.dice.clock.share_of is not None:
            self.dice.clock(t[own])
