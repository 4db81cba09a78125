"""Which rows of a batch say a given condition: guidances put several conditions into one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from conditioning.condition import Condition


def rows_of(condition: Condition, wanted: Condition) -> Tensor:
    """Numbers (R,) of the rows whose parts are, to the bit, those of `wanted`, which has one row. Tokens may be padded on the
    right, as `Condition.cat` does."""
    found = torch.ones(len(condition), dtype=torch.bool)
    for name, part in wanted.parts.items():
        for key, own in part.items():
            found &= _same(condition.parts[name][key], own)
    return found.nonzero()[:, 0]


def _same(given: Tensor, own: Tensor) -> Tensor:
    """Row by row (B,), on the CPU."""
    cut = given[:, : own.shape[1]] if own.ndim > 1 else given
    if cut.shape[1:] != own.shape[1:]:  # fewer tokens
        return torch.zeros(len(given), dtype=torch.bool)
    return (cut == own).reshape(len(given), -1).all(1).cpu()
