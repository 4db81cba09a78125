"""The judge: a small convolutional net that says which noun, which set and which colour a picture shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from colours import COLOURS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SETS = ("noto", "fluent-emoji-flat", "twemoji")
SHADES = (*COLOURS, "")
"""What the colour head says; the last: no main colour."""

SIDE, FINE = 32, 64
"""Pixels a side that the convolutions and the palette look at, whatever the size of the pictures."""

WIDTHS = (32, 64, 128)
EMBEDDING, HIDDEN = 128, 128
BINS, CELLS = 9, 16
LOOK = sum(WIDTHS) + BINS**3 + 2 * CELLS
RARE = 0.05**2
"""Variance added to that of every number of the look: a colour that is hardly ever seen must not decide."""


def inked(pictures: Tensor, side: int) -> Tensor:
    """uint8 pictures (N, 3, H, W) -> float (N, 3, side, side): 0 for white, 1 for black."""
    return 1 - F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True).clamp(0, 255) / 255


def palette(x: Tensor) -> Tensor:
    """Square roots of the shares of colours in what is drawn, (N, BINS³), of inked pictures (N, 3, h, w).

    A pixel counts for the eight nearest of BINS³ colours, by nearness; whitish pixels count less.
    """
    ink = (8 * x.amax(1)).clamp(max=1).flatten(1)
    place = x.clamp(0, 1).flatten(2) * (BINS - 1)
    low = place.floor().clamp(max=BINS - 2)
    part, low = place - low, low.long()
    counts = x.new_zeros(len(x), BINS**3)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist():
        weight, number = ink, torch.zeros_like(low[:, 0])
        for channel, up in enumerate(corner):
            weight = weight * (part[:, channel] if up else 1 - part[:, channel])
            number = number * BINS + low[:, channel] + up
        counts.scatter_add_(1, number, weight)
    return (counts / ink.sum(1, keepdim=True).clamp(min=1)).sqrt()


def framing(x: Tensor) -> Tensor:
    """How much is drawn in each of 16 columns and rows at most, (N, 32): where a set's drawings end on the page."""
    cells = F.adaptive_avg_pool2d((4 * x.amax(1)).clamp(max=1), CELLS)
    return torch.cat([cells.amax(1), cells.amax(2)], 1)


class Judge(nn.Module):
    """Three levels of convolutions. The last one gives the embedding of the noun. Palette, framing and the means of the levels
    are the look, from which a second, smaller net reads set and colour.

    Args:
        names: the nouns (hyphenated), in the order of their head.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.levels = nn.ModuleList(_level(i) for i in range(len(WIDTHS)))
        self.embedding = nn.Linear(WIDTHS[-1] * (SIDE // 2 ** len(WIDTHS)) ** 2, EMBEDDING)
        self.nouns = nn.Parameter(torch.randn(len(names), EMBEDDING))
        self.standard = nn.BatchNorm1d(LOOK, eps=RARE, affine=False, momentum=None)
        self.hidden = nn.Linear(LOOK, HIDDEN)
        self.set = nn.Linear(HIDDEN, len(SETS))
        self.colour = nn.Linear(HIDDEN, len(SHADES))

    def convolved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inked pictures (N, 3, SIDE, SIDE) -> unit embeddings (N, 128), means of the levels (N, 224)."""
        means = []
        for level in self.levels:
            x = level(x)
            means.append(x.mean((2, 3)))
        return F.normalize(self.embedding(x.flatten(1)), dim=1), torch.cat(means, 1)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pictures (N, 3, H, W) -> unit embeddings (N, 128) of the noun, their look (N, LOOK)."""
        embedding, means = self.convolved(inked(pictures, SIDE).contiguous(memory_format=torch.channels_last))
        fine = inked(pictures, FINE)
        return embedding, torch.cat([means, palette(fine), framing(fine)], 1)

    def features(self, look: Tensor) -> Tensor:
        """What set and colour are read from, (N, HIDDEN)."""
        return F.relu(self.hidden(self.standard(look)))

    def save(self, file: Path, facts: Mapping[str, str]) -> None:
        """safetensors; the nouns and `facts` are in its metadata."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".part")
        weights = {key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(weights, beside, metadata={"names": json.dumps(self.names), **facts})
        beside.replace(file)

    @classmethod
    def load(cls, file: Path) -> tuple[Judge, dict[str, str]]:
        """The judge in eval mode, and its facts."""
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata()
        judge = cls(json.loads(facts.pop("names")))
        judge.load_state_dict(load_file(file))
        return judge.to(memory_format=torch.channels_last).eval(), facts


def _level(i: int) -> nn.Sequential:
    """Halves the sides; the first looks at 5 × 5 pixels, the others have a second convolution."""
    width = WIDTHS[i]
    if i == 0:
        return nn.Sequential(nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    down = nn.Conv2d(WIDTHS[i - 1], width, 3, 2, 1, bias=False)
    same = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    return nn.Sequential(down, nn.BatchNorm2d(width), nn.ReLU(), same, nn.BatchNorm2d(width), nn.ReLU())
