"""From attention maps of layers to one map a word, on the grid of the finest layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.backbones.columns import Span
from adapt.sampling.words import Word


@dataclass(frozen=True)
class Looked:
    """How much a word is looked at.

    Attributes:
        word: of the prompt.
        tokens: how many the encoder makes of it; 0: it is cut off, nothing reads it.
        share: of all looks, 0 … 1: mean over places, heads, layers and time steps.
        heat: where from (H, W), on the CPU: the same before the mean over places; bilinear between the layers' grids.
    """

    word: Word
    tokens: int
    share: float
    heat: Tensor

    @property
    def focus(self) -> float:
        """How much more the place looks at it that looks most, than places do in the mean; 1: all the same."""
        return float(self.heat.max()) / self.share if self.share else 1.0

    @property
    def place(self) -> tuple[float, float]:
        """Where that place is: across and down, 0 … 1."""
        rows, columns = self.heat.shape
        row, column = divmod(int(self.heat.argmax()), columns)
        return (column + 0.5) / columns, (row + 0.5) / rows


def columns_in(spans: Sequence[Span], word: Word) -> list[int]:
    """Tokens that are about a character of the word."""
    return [number for number, (first, end) in enumerate(spans) if first < word.end and end > word.start]


def grid_of(places: int, dims: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a layer that sees latents of these dims at a coarser step: halves are rounded up, as UNets do.

    Raises:
        ValueError: no step gives as many.
    """
    height, width = dims
    for step in range(1, max(height, width) + 1):
        if (found := (ceil(height / step), ceil(width / step)))[0] * found[1] == places:
            return found
    raise ValueError(f"{places} places are no grid of {height} x {width} latents")


def looked_at(
    maps: Mapping[str, Tensor], dims: Sequence[int], spans: Sequence[Span], words: Sequence[Word]
) -> list[Looked]:
    """One map a word.

    Args:
        maps: `Recorder.maps`: layer → (N, L + 1).
        dims: height and width of the latents.
        spans: `Backbone.columns` of the prompt.
    """
    grids = {name: grid_of(len(each), dims) for name, each in maps.items()}
    finest = max(grids.values(), key=lambda grid: grid[0] * grid[1])
    picked = [columns_in(spans, word) for word in words]
    heat = torch.stack([_finest(_of_words(each, picked), grids[name], finest) for name, each in maps.items()]).mean(0)
    return [
        Looked(word, len(columns), float(own.mean()), own)
        for word, columns, own in zip(words, picked, heat, strict=True)
    ]


def _of_words(places: Tensor, picked: Sequence[Sequence[int]]) -> Tensor:
    """(N, L + 1) → (words, N): all tokens of a word together."""
    return torch.stack([places[:, list(columns)].sum(-1) for columns in picked])


def _finest(words: Tensor, grid: tuple[int, int], finest: tuple[int, int]) -> Tensor:
    """(words, N) → (words, H, W)."""
    own = words.view(len(words), 1, *grid)
    return F.interpolate(own, finest, mode="bilinear", align_corners=False)[:, 0]


def elsewhere(maps: Mapping[str, Tensor], spans: Sequence[Span], words: Sequence[Word]) -> dict[str, float]:
    """What is not looked at in words: the picture itself (joint attention only), and the rest, which is the tokens of start and
    end, padding and punctuation; shares, mean over layers."""
    picture = float(torch.stack([each[:, -1].mean() for each in maps.values()]).mean())
    columns = sorted({number for word in words for number in columns_in(spans, word)})
    said = float(torch.stack([each[:, columns].sum(-1).mean() for each in maps.values()]).mean())
    return {"picture": picture, "no_word": max(0.0, 1 - picture - said)}
