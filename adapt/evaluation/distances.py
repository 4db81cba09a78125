"""Distances between sets of pictures that are honest for small sets: kernel MMD and Rényi kernel entropy, both without pairs of
a picture with itself.

All take a kernel matrix and weights of pictures, so that leaving one out (the jackknife) is a weight of 0. The kernel is
exp(-d² / median d² of the reference): with the usual constants it would see nothing but the mean (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def bandwidth(features: Tensor) -> float:
    """Median squared distance between different rows of (N, d); 1 where all are the same."""
    pairs = torch.pdist(features).square()
    return float(pairs.median()) or 1.0


def kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """exp(-d² / width) of rows (N, d) and (M, d): (N, M), 1 for equal ones."""
    return torch.exp(-torch.cdist(a, b).square() / width)


def within(k: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a kernel (…, N, N) over pairs of different pictures: (…)."""
    pairs = weights[:, None] * weights[None, :]
    pairs = pairs - torch.diag(pairs.diagonal())
    return (k * pairs).sum((-2, -1)) / pairs.sum()


def between(k: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weighted mean of a kernel (…, N, M) over all pairs: (…)."""
    pairs = a[:, None] * b[None, :]
    return (k * pairs).sum((-2, -1)) / pairs.sum()


def mmd2(xx: Tensor, xy: Tensor, yy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3): 0 by chance for equal distributions, and then as
    often negative as not; kernel inception distance is the same with another kernel (arXiv 1801.01401).

    Args:
        xx, xy, yy: kernels within and between, (…, N, N), (…, N, M), (M, M).
        x, y: weights of the pictures (N,), (M,).
    """
    return within(xx, x) + within(yy, y) - 2 * between(xy, x, y)


def modes(k: Tensor, weights: Tensor) -> Tensor:
    """Effective number of different pictures: 1 / mean k² over pairs, the order-2 Rényi kernel entropy (RKE) without pairs of a
    picture with itself, which makes it free of the number of pictures.

    Args:
        k: exp(-2 d² / median d²) of (…, N, N).
    """
    return 1 / within(k.square(), weights).clamp(min=1e-12)


def spread(statistic: Callable[[Tensor, Tensor], Tensor], groups: Tensor, references: int) -> Tensor:
    """Two-sample jackknife: the standard error of a statistic of pictures and of reference pictures.

    Args:
        statistic: of weights (N,) and (M,), of any shape.
        groups: number of each picture's group (N,): pictures of one prompt stand and fall together.
        references: M.
    """
    ones, known = torch.ones(len(groups), dtype=torch.float64), torch.ones(references, dtype=torch.float64)
    drawn = [statistic((groups != g).double(), known) for g in sorted(set(groups.tolist()))]
    given = [statistic(ones, _without(known, i)) for i in range(references)]
    return (_variance(drawn) + _variance(given)).sqrt()


def _without(weights: Tensor, index: int) -> Tensor:
    left = weights.clone()
    left[index] = 0
    return left


def _variance(values: list[Tensor]) -> Tensor:
    found = torch.stack(values)
    return (len(found) - 1) / len(found) * (found - found.mean(0)).square().sum(0)


def separation(xx: Tensor, xy: Tensor, yy: Tensor) -> float:
    """How well nearness tells two sets apart (area under the ROC curve; 0.5 is chance): each picture by how much nearer it is
    to the other pictures of the second set than to those of the first."""
    n, m = xy.shape
    first = xy.mean(1) - (xx.sum(1) - xx.diagonal()) / (n - 1)
    second = (yy.sum(1) - yy.diagonal()) / (m - 1) - xy.mean(0)
    above = second[None, :] - first[:, None]
    return float(((above > 0).double() + 0.5 * (above == 0).double()).mean())
