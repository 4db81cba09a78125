"""The nearest LoRA to a difference of weights, by singular values (Eckart & Young 1936)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.formats.lora_weights import Pair

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are rounding, not directions."""


def nearest(delta: Tensor, rank: int) -> tuple[Pair, Tensor]:
    """The LoRA of at most this rank nearest to ΔW, and ‖what is left out‖² (a scalar).

    Args:
        delta: ΔW, (out, in) or (out, in, k, k).

    Returns:
        A `Pair` of factor 1 whose two halves carry equal shares of each singular value. Its rank is lower where ΔW's is
        (and 1 for ΔW = 0).
    """
    import torch

    u, s, v = torch.linalg.svd(delta.float().flatten(1), full_matrices=False)
    count = max(1, min(rank, int((s > s[0] * NEGLIGIBLE).sum())))
    root = s[:count].sqrt()
    ones = [1] * (delta.ndim - 2)
    down = (root[:, None] * v[:count]).reshape(count, *delta.shape[1:])
    up = (u[:, :count] * root).reshape(len(delta), count, *ones)
    return Pair(down.contiguous(), up.contiguous(), float(count)), s[count:].square().sum()
