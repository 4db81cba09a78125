"""Pictures → features that need no other network and no download: random textures, and the frozen base's own.

Distances of such features are what style is measured by. Random convolutions rank generators about as trained ones do, and see
other things (arXiv 2208.09218): line, texture, palette. The base's own features see content too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image, Resampling
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.inside import inside
from adapt.data.plan import normal

Blocks = list[Tensor]
"""Pieces of a feature, each (N, d) of its own kind and unit."""
Extractor = Callable[[Sequence[Image]], Blocks]

SIDE, SCALES, FILTERS, GRAM, LEVELS = 96, (1, 2, 4), 64, 256, 4
NOISES, SHARE, ROWS = 4, 0.26, 8


def texture(pictures: Sequence[Image]) -> Blocks:
    """RGB pictures → means, deviations and correlations of fixed random filters at three scales, and a histogram of colours."""
    parts = [_looked_at(pictures[i : i + ROWS]) for i in range(0, len(pictures), ROWS)]
    return [torch.cat(blocks) for blocks in zip(*parts, strict=True)]


def _looked_at(pictures: Sequence[Image]) -> Blocks:
    x = torch.stack([_square(picture) for picture in pictures])
    return [*(_filtered(F.avg_pool2d(x, scale), scale) for scale in SCALES), _histogram(x)]


def _square(picture: Image) -> Tensor:
    small = picture.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1


def _filtered(x: Tensor, scale: int) -> Tensor:
    """(N, 3, s, s) → (N, 2 · FILTERS + GRAM)."""
    filters, mix = _random(scale)
    seen = F.relu(F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), filters)).flatten(2)
    upper = torch.triu_indices(FILTERS, FILTERS)
    together = (seen @ seen.transpose(1, 2) / seen.shape[2])[:, upper[0], upper[1]]
    return torch.cat([seen.mean(2), seen.std(2), together @ mix], 1)


@cache
def _random(scale: int) -> tuple[Tensor, Tensor]:
    """Filters (FILTERS, 3, 5, 5) and what mixes their correlations (pairs, GRAM), the same everywhere."""
    pairs = FILTERS * (FILTERS + 1) // 2
    filters = normal(0, "texture filters", scale, 0, (FILTERS, 3, 5, 5)) / 75**0.5
    return filters, normal(0, "texture mix", scale, 0, (pairs, GRAM)) / pairs**0.5


def _histogram(x: Tensor) -> Tensor:
    """(N, 3, s, s) in [-1, 1] → square roots of the shares of LEVELS³ colours."""
    level = ((x + 1) / 2 * LEVELS).long().clamp(0, LEVELS - 1)
    number = (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
    return F.one_hot(number.flatten(1), LEVELS**3).float().mean(1).sqrt()


@dataclass(frozen=True)
class Inside:
    """The base's own features: its middle block's, of pictures with some noise, under the null condition.

    Attributes:
        backbone: without any adapter.
        height, width: in pixels: what the pictures are brought to.
    """

    backbone: Backbone
    height: int
    width: int

    def latents(self, pictures: Sequence[Image]) -> Tensor:
        """Means of the scaled latents (N, C, *dims), on the CPU."""
        whole = [_fitted(picture, self.height, self.width) for picture in pictures]
        rows = (torch.stack(whole[i : i + ROWS]) for i in range(0, len(whole), ROWS))
        return torch.cat([self.backbone.encode_media(x.to(self.backbone.device))[0].cpu() for x in rows])

    def __call__(self, latents: Tensor) -> Tensor:
        """(N, C, *dims) → (N, d), mean over a few fixed noises."""
        return torch.cat([self._rows(latents[i : i + ROWS]) for i in range(0, len(latents), ROWS)])

    def _rows(self, latents: Tensor) -> Tensor:
        backbone, objective = self.backbone, self.backbone.objective()
        x = latents.to(backbone.device, backbone.dtype)
        times = objective.times(torch.linspace(0, 1, 513, dtype=torch.float64)[:-1], x.shape[2:])
        t = times[(times - SHARE * times.max()).abs().argmin()].expand(len(x)).to(x.device)
        null = backbone.null(len(x)).to(backbone.device, backbone.dtype)
        noises = (normal(0, "features", k, 0, x.shape[1:]).to(x).expand_as(x) for k in range(NOISES))
        found = [inside(backbone, objective.noised(x, noise, t), t, null) for noise in noises]
        return torch.stack(found).mean(0)


def _fitted(picture: Image, height: int, width: int) -> Tensor:
    from adapt.data.decode import fit, pixels

    return pixels(fit(picture.convert("RGB"), width, height))


@dataclass(frozen=True)
class Scaling:
    """How blocks become one feature: each in units of its own spread over the pictures that it was fitted to.

    Attributes:
        spreads: root of the mean squared distance from the mean, of each block.
    """

    spreads: tuple[float, ...]

    @staticmethod
    def fitted(blocks: Blocks) -> Scaling:
        """To these pictures; a block without any spread there counts for nothing."""
        return Scaling(tuple(float((b - b.mean(0)).square().sum(1).mean().sqrt()) for b in blocks))

    def __call__(self, blocks: Blocks) -> Tensor:
        """(N, d), fp64."""
        parts = [b.double() / spread for b, spread in zip(blocks, self.spreads, strict=True) if spread > 0]
        return torch.cat(parts, 1) if parts else torch.zeros(len(blocks[0]), 1, dtype=torch.float64)
