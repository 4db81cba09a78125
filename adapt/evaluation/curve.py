"""The held-out loss by band of noise, and the log ratio to the base that weighs all bands alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.evaluation.measurement import Band


def bands(noise: Tensor, adapted: Tensor, base: Tensor) -> tuple[Band, ...]:
    """The curve, clean first.

    Args:
        noise: share of noise of each cell, as the losses.
        adapted, base: losses (pictures, bands), fp64.
    """
    return tuple(_band(noise[:, k], adapted[:, k : k + 1], base[:, k : k + 1]) for k in range(base.shape[1]))


def _band(noise: Tensor, adapted: Tensor, base: Tensor) -> Band:
    value, error = mean_log_ratio(adapted, base)
    return Band(float(noise.double().mean()), float(adapted.mean()), float(base.mean()), value, error)


def mean_log_ratio(adapted: Tensor, base: Tensor) -> tuple[float | None, float | None]:
    """Mean over pictures of Δ = mean over bands of log(adapted / base), and its standard error over pictures.

    Raw losses differ by orders between bands, and their mean is governed by the largest; logarithms of ratios are not.
    Cells in which the base's loss is 0 are left out: there the base is right by definition, and a ratio to it says nothing.

    Args:
        adapted, base: losses (pictures, bands), fp64.

    Returns:
        (None, None) when no cell counts or a loss is 0 or not finite; (Δ, None) with a single picture.
    """
    counts = base > 0
    some = counts.any(1)
    logs = (adapted / base).log().where(counts, torch.zeros_like(base)).sum(1)
    each = logs[some] / counts.sum(1)[some]
    if not len(each) or not bool(each.isfinite().all()):
        return None, None
    return float(each.mean()), float(each.std() / len(each) ** 0.5) if len(each) > 1 else None


def table(losses: Sequence[float] | Tensor) -> Tensor:
    """Losses as (pictures, bands), fp64; one number a picture is one band."""
    found = torch.as_tensor(losses, dtype=torch.float64)
    return found[:, None] if found.ndim == 1 else found
