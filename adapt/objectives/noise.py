"""What is added to a picture beside plain noise, all of it drawn by the Plan.

Everything here is computed row by row, so that a row's noise has the same bits whatever stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Even = Callable[[str], float]
"""`even(stream)`: one even draw in [0, 1), the same for all rows of a step."""


class Draw(Protocol):
    """`draw(shape, stream) -> (n, *shape)`: standard normal noise of n rows, fp32 on the CPU. Streams are independent."""

    def __call__(self, shape: Sequence[int], stream: str = "noise") -> Tensor: ...


def offset(noise: Tensor, level: Tensor, strength: Tensor | float) -> Tensor:
    """noise + strength · level: the same shift at every place of a channel (Guttenberg 2023, "Diffusion with offset noise").

    Args:
        noise: (B, C, *dims).
        level: standard normal (B, C).
        strength: a number, or one for each channel (B, C).
    """
    return noise + (strength * level).view(*level.shape, *[1] * (noise.ndim - 2))


def adapted(x: Tensor, strength: float, scale: float) -> Tensor:
    """Strength of the offset (B, C) that follows the mean brightness: max(strength + scale · |mean of x|, 0), as kohya's."""
    means = torch.stack([row.flatten(1).mean(1) for row in x])
    return (strength + scale * means.abs()).clamp(min=0)


def coarser(dims: Sequence[int], ratios: Sequence[float]) -> list[tuple[int, ...]]:
    """Dims of the coarser levels: dims / rⁱ, the i-th with the i-th ratio, until a side of the picture is 1 (frames of a
    video may be fewer)."""
    levels: list[tuple[int, ...]] = []
    for i, ratio in enumerate(ratios, 1):
        levels.append(tuple(max(1, int(d / ratio**i)) for d in dims))
        if 1 in levels[-1][-2:]:
            break
    return levels


def multires(noise: Tensor, coarse: Sequence[Tensor], discount: float) -> Tensor:
    """(√2 ε + Σᵢ dⁱ up(εᵢ)) / its standard deviation: noise of several resolutions at once (Whitaker 2023, "Multi-resolution
    noise for diffusion model training").

    The √2 stands for the level of i = 0, which has full resolution and is added to ε.

    Args:
        noise: ε (B, C, *dims) with one, two or three dims.
        coarse: εᵢ (B, C, *smaller dims), i = 1, 2, …
        discount: d, 0 … 1.
    """
    return torch.stack([_multires(row, [c[i] for c in coarse], discount) for i, row in enumerate(noise)])


def _multires(noise: Tensor, coarse: Sequence[Tensor], discount: float) -> Tensor:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[noise.ndim - 1]
    total = math.sqrt(2) * noise
    for i, level in enumerate(coarse, 1):
        total = total + discount**i * F.interpolate(level[None], noise.shape[1:], mode=mode)[0]
    return total / total.std()


def nearest(x: Tensor, candidates: Sequence[Tensor]) -> Tensor:
    """For each row the candidate nearest to x, as if picture and noise did not mix.

    Immiscible diffusion (Li et al. 2024, arXiv 2406.12303) assigns a batch's noises to its pictures; choosing among k of a
    row's own (Li et al. 2025, arXiv 2505.18521) needs no batch.

    Args:
        x: (B, C, *dims).
        candidates: k noises, each shaped like x.
    """
    rows = zip(x, *candidates, strict=True)
    return torch.stack([min(found, key=lambda noise: float((row - noise).square().sum())) for row, *found in rows])


@dataclass(frozen=True)
class Noise:
    """The noise of a run.

    Attributes:
        offset: strength of the offset; 0: none.
        adaptive: how much of the mean brightness is added to that strength.
        iterations: levels of multi-resolution noise, the finest included; 0: none.
        discount: weight of each level beside the finer one.
        candidates: noises from which the one nearest to x is taken; 1: plain noise.
        perturbation: γ of `perturbed`; 0: none.
    """

    offset: float = 0.0
    adaptive: float = 0.0
    iterations: int = 0
    discount: float = 0.3
    candidates: int = 1
    perturbation: float = 0.0

    def __call__(self, x: Tensor, draw: Draw, even: Even) -> Tensor:
        """The noise that x is mixed with and that its target is made of: shaped like x, in its dtype, on its device."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        noise = self._nearest(wide, draw)
        if self.iterations:
            noise = multires(noise, self._coarse(wide, draw, even), self.discount)
        if self.offset:
            strength = adapted(wide, self.offset, self.adaptive) if self.adaptive else self.offset
            noise = offset(noise, draw(x.shape[1:2], "noise-offset").to(wide), strength)
        return noise.to(x)

    def _nearest(self, x: Tensor, draw: Draw) -> Tensor:
        noise = draw(x.shape[1:]).to(x)
        if self.candidates == 1:
            return noise
        return nearest(x, [noise, *(draw(x.shape[1:], f"noise-{i}").to(x) for i in range(1, self.candidates))])

    def _coarse(self, x: Tensor, draw: Draw, even: Even) -> list[Tensor]:
        ratios = [2 + 2 * even(f"noise-ratio-{i}") for i in range(1, self.iterations)]
        levels = enumerate(coarser(x.shape[2:], ratios), 1)
        return [draw((x.shape[1], *dims), f"noise-level-{i}").to(x) for i, dims in levels]

    def perturbed(self, noise: Tensor, draw: Draw) -> Tensor:
        """noise + γ ξ: what x is mixed with in the input alone; the target keeps `noise` (Ning et al. 2023, arXiv
        2301.11706, algorithm 1)."""
        if not self.perturbation:
            return noise
        return noise + self.perturbation * draw(noise.shape[1:], "noise-input").to(noise)


PLAIN = Noise()
