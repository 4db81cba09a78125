"""Weights of the times, each a function of the signal-to-noise ratio.

Papers write a weight for the prediction that they train: epsilon, v, x or flow. What it means for a picture is the weight of
the error of x, and that is what these functions return; `Objective.weight` turns it into the units of its own loss, so that
one weighting is the same whatever is predicted. A squared error of x is SNR times as large in epsilon, SNR + 1 in v and
(1 + √SNR)² in flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

Weighting = Callable[[Tensor], Tensor]
"""SNR (B,) → weight of the squared error of x (B,). SNRs are positive and finite."""

LOWEST, HIGHEST = 1e-30, 1e12
"""SNRs are brought between these first: 0 (zero-terminal SNR) and ∞ (a flow's time 0) then have finite weights."""


def min_snr(snr: Tensor, gamma: float = 5.0) -> Tensor:
    """min(SNR, γ) (Hang et al. 2023, arXiv 2303.09556, section 3.4)."""
    return snr.clamp(max=gamma)


def soft_min_snr(snr: Tensor, gamma: float = 5.0) -> Tensor:
    """SNR γ / (SNR + γ): min-SNR without its corner (Crowson et al. 2024, arXiv 2401.11605, section 3.4)."""
    return snr * gamma / (snr + gamma)


def debiased(snr: Tensor) -> Tensor:
    """1 / √SNR for epsilon (Yu et al. 2023, arXiv 2310.08442); no more than 1000, reached at an SNR of 1e-6."""
    return snr / snr.clamp(min=1e-6).sqrt()


def p2(snr: Tensor, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """1 / (k + SNR)^γ for epsilon (Choi et al. 2022, arXiv 2204.00227, eq. 8)."""
    return snr / (k + snr) ** gamma


def sigma_sqrt(snr: Tensor) -> Tensor:
    """σ⁻² for flow, as in diffusers' scripts for SD3 and Flux; σ = 1 / (1 + √SNR) is at least 1/1000."""
    sigma = 1 / (1 + snr.sqrt())
    return _of_flow(sigma.clamp(min=1e-3) ** -2, snr)


def cosmap(snr: Tensor) -> Tensor:
    """2 / (π (1 - 2 σ + 2 σ²)) for flow: the cosine schedule's density (Esser et al. 2024, arXiv 2403.03206, eq. 22)."""
    sigma = 1 / (1 + snr.sqrt())
    return _of_flow(2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2)), snr)


def _of_flow(weight: Tensor, snr: Tensor) -> Tensor:
    return weight * (1 + snr.sqrt()).square()


def weighting(kind: str, gamma: float = 5.0, p2_gamma: float = 1.0, p2_k: float = 1.0) -> Weighting | None:
    """By name; `none` is None, the even weight of 1.

    Args:
        gamma: γ of `min_snr` and `soft_min_snr`.
        p2_gamma, p2_k: γ and k of `p2`.
    """
    table: dict[str, Weighting | None] = {
        "none": None,
        "min_snr": partial(min_snr, gamma=gamma),
        "soft_min_snr": partial(soft_min_snr, gamma=gamma),
        "debiased": debiased,
        "p2": partial(p2, gamma=p2_gamma, k=p2_k),
        "sigma_sqrt": sigma_sqrt,
        "cosmap": cosmap,
    }
    return table[kind]
