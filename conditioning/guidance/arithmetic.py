"""What guidances have in common: pushing away, and bringing the standard deviation back."""

from __future__ import annotations

from torch import Tensor


def pushed(weak: Tensor, strong: Tensor, scale: float) -> Tensor:
    """weak + scale · (strong - weak): beyond `strong` from 1 on."""
    return weak + scale * (strong - weak)


def rescaled(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """`guided` with its standard deviation brought back to the conditional's, `rescale` of the way (Lin et al. 2023,
    arXiv 2305.08891, section 3.4)."""
    if rescale == 0:
        return guided
    dims = tuple(range(1, guided.ndim))
    matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return rescale * matched + (1 - rescale) * guided
