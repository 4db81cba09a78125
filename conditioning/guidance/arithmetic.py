"""What guidances have in common: pushing away, and bringing the standard deviation back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Normalise = Callable[[Tensor, Tensor], Tensor]
"""`normalise(guided, conditional) -> guided'`, all (B, C, *dims): what some families do to a guided prediction."""


def pushed(weak: Tensor, strong: Tensor, scale: float) -> Tensor:
    """weak + scale · (strong - weak): beyond `strong` from 1 on."""
    return weak + scale * (strong - weak)


def rescaled(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """`guided` with its standard deviation brought back to the conditional's, `rescale` of the way (Lin et al. 2023,
    arXiv 2305.08891, section 3.4). Zeros, with which CFG-Zero* begins, stay zeros."""
    if rescale == 0:
        return guided
    dims = tuple(range(1, guided.ndim))
    wanted, found = conditional.std(dims, keepdim=True), guided.std(dims, keepdim=True)
    matched = guided * torch.where(found == 0, 0, wanted / found)
    return rescale * matched + (1 - rescale) * guided


def normalised(guided: Tensor, conditional: Tensor, normalise: Normalise | None) -> Tensor:
    """What a family does to a guided prediction, where it does something."""
    return guided if normalise is None else normalise(guided, conditional)
