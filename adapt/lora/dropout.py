"""Dropout inside an adapter: which inputs, rank components and whole modules a row does without is the Plan's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adapt.data.plan import even
from adapt.lora.by_time import Clock


@dataclass
class Dice:
    """Where the run is, for dropout inside the model: its masks are functions of (seed, step, position, layer).

    Attributes:
        seed: the run's.
        step: optimizer step.
        positions: position of each row in the global batch.
        batch: of all rows, where this network predicts some of them.
        scope: of which network, so that layers of one number in different ones differ.
        clock: at which times rows are, for T-LoRA.
    """

    seed: int = 0
    step: int = 0
    positions: Sequence[int] = ()
    scope: str = ""
    clock: Clock = field(default_factory=Clock)
    batch: Sequence[int] = ()

    def move(self, step: int, positions: Sequence[int]) -> None:
        """To these rows of the batch of `step`."""
        self.step, self.batch, self.positions = step, positions, positions

    def narrow(self, own: Sequence[bool]) -> None:
        """To those rows of them that this network predicts."""
        if len(own) == len(self.batch):  # else it is a prediction beside the step, without dropout
            self.positions = [position for position, mine in zip(self.batch, own, strict=True) if mine]

    def rows_of(self, x: Tensor) -> Sequence[int]:
        """The position of each row of x (B, …)."""
        if len(x) != len(self.positions):
            raise ValueError(f"{len(x)} rows stand at {len(self.positions)} positions of the batch")
        return self.positions

    def kept(self, stream: str, p: float, position: int, shape: Sequence[int]) -> Tensor:
        """bool of this shape: what is not dropped, each entry with probability 1 - p."""
        return even(self.seed, self.scope + stream, self.step, position, shape) >= p


class PlannedDropout(nn.Module):
    """Dropout before a LoRA layer whose mask does not depend on processes, accumulation or what ran before.

    Args:
        p: share that is dropped, 0 ≤ p < 1.
        layer: number of the layer, so that layers differ.
        dice: the run's position; shared by all layers.
    """

    def __init__(self, p: float, layer: int, dice: Dice) -> None:
        super().__init__()
        self.p, self.layer, self.dice = p, layer, dice

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …), one row a position → the same shape; the identity in eval mode."""
        if not self.training:
            return x
        masks = [self._mask(position, x[0]) for position in self.dice.rows_of(x)]
        return x * torch.stack(masks).to(x) / (1 - self.p)

    def _mask(self, position: int, row: Tensor) -> Tensor:
        return self.dice.kept(f"lora-dropout-{self.layer}", self.p, position, row.shape)


class RankDropout(PlannedDropout):
    """Drops rank components row by row, and makes the others stronger for it (kohya's `rank_dropout`).

    For LoRA a component is a row of A, as in kohya's scripts. LoHa and LoKr have none that could be dropped by itself: there
    it is an output of the adapter, as in LyCORIS.

    Args:
        axis: where the components stand: -1 for linear layers, 1 for convolutions.
    """

    def __init__(self, p: float, layer: int, dice: Dice, axis: int) -> None:
        super().__init__(p, layer, dice)
        self.axis = axis

    def _mask(self, position: int, row: Tensor) -> Tensor:
        count = row.shape[self.axis if self.axis < 0 else self.axis - 1]
        sides = [1] * row.ndim
        sides[self.axis if self.axis < 0 else self.axis - 1] = count
        return self.dice.kept(f"rank-dropout-{self.layer}", self.p, position, [count]).reshape(sides)


class ModuleDropout(PlannedDropout):
    """Leaves the adapter out of this layer for some rows (kohya's `module_dropout`); the other rows stay as strong."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …) → rows as they are, or 0; the identity in eval mode."""
        if not self.training:
            return x
        kept = [self._mask(position, x[0]) for position in self.dice.rows_of(x)]
        return x * torch.stack(kept).to(x)

    def _mask(self, position: int, row: Tensor) -> Tensor:
        return self.dice.kept(f"module-dropout-{self.layer}", self.p, position, [1] * row.ndim)
