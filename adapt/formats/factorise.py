"""The nearest LoRA to a difference of weights, by singular values (Eckart & Young 1936)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapt.errors import SettingsError
from adapt.formats.lora_weights import Pair

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are rounding, not directions."""


@dataclass(frozen=True)
class Keep:
    """How many singular values are kept: the fewest that all of these allow, and at least one.

    Attributes:
        rank: at most so many.
        energy: until their squares are this share of all squares, 0 < energy ≤ 1.
        ratio: those above the largest divided by this, ratio ≥ 1 (kohya's `sv_ratio`).
    """

    rank: int | None = None
    energy: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise SettingsError("rank is out of range", given=self.rank, allowed="1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise SettingsError("energy is out of range", given=self.energy, allowed="above 0, up to 1")
        if self.ratio is not None and not self.ratio >= 1:
            raise SettingsError("ratio is out of range", given=self.ratio, allowed="1 or more")

    def count(self, values: Tensor) -> int:
        """Of singular values, largest first."""
        found = int((values > values[0] * NEGLIGIBLE).sum())
        if self.rank is not None:
            found = min(found, self.rank)
        if self.energy is not None:
            shares = values.double().square().cumsum(0) / values.double().square().sum().clamp(min=1e-300)
            found = min(found, int((shares < self.energy - 1e-12).sum()) + 1)
        if self.ratio is not None:
            found = min(found, int((values >= values[0] / self.ratio).sum()))
        return max(1, found)


def nearest(delta: Tensor, keep: int | Keep) -> tuple[Pair, Tensor]:
    """The LoRA of at most this rank nearest to ΔW, and ‖what is left out‖² (a scalar).

    Args:
        delta: ΔW, (out, in) or (out, in, k, k).

    Returns:
        A `Pair` of factor 1 whose two halves carry equal shares of each singular value. Its rank is lower where ΔW's is
        (and 1 for ΔW = 0).
    """
    import torch

    u, s, v = torch.linalg.svd(delta.float().flatten(1), full_matrices=False)
    return _pair(u, s, v, delta.shape, _keep(keep))


def nearest_to(layer: Pair, keep: int | Keep) -> tuple[Pair, Tensor]:
    """The same for a LoRA, without making its ΔW: by QR of both halves, the singular values are those of an r × r matrix."""
    import torch

    down, up = layer.down.float().flatten(1), layer.up.float().flatten(1) * layer.scale
    if layer.rank > min(len(up), down.shape[1]):
        return nearest(layer.delta(), keep)
    (left, a), (right, b) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    u, s, v = torch.linalg.svd(a @ b.T, full_matrices=False)
    return _pair(left @ u, s, v @ right.T, layer.shape, _keep(keep))


def _keep(keep: int | Keep) -> Keep:
    return Keep(rank=keep) if isinstance(keep, int) else keep


def _pair(u: Tensor, s: Tensor, v: Tensor, shape: tuple[int, ...], keep: Keep) -> tuple[Pair, Tensor]:
    count = keep.count(s)
    root = s[:count].sqrt()
    ones = [1] * (len(shape) - 2)
    down = (root[:, None] * v[:count]).reshape(count, *shape[1:])
    up = (u[:, :count] * root).reshape(shape[0], count, *ones)
    return Pair(down.contiguous(), up.contiguous(), float(count)), s[count:].square().sum()
