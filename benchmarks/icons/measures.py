"""The measures as arithmetic: on pictures, embeddings and rows, without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from colours import COLOURS, main_colour
from PIL import Image
from torch import Tensor

COLOURS_A_PAIR = 6
BORDER = 32
"""The white border is one part in so many of a picture's side (2 of 64 px)."""

GROUPS = 20
PAPER = 24
"""How far from white, in 0 … 255 a channel, the page may be: a decoder's white is not quite white."""


class Named(Protocol):
    """What a row of `rows.json` says that matters here."""

    @property
    def name(self) -> str: ...
    @property
    def colour(self) -> str: ...


@dataclass(frozen=True)
class Mean:
    """A mean over pictures with its standard error over independent groups of them. A share is a mean of 0 and 1."""

    value: float
    error: float
    pictures: int
    groups: int

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.error:.1f} %"


def mean(values: Tensor, group: Sequence[object] | None = None) -> Mean:
    """Of values (N,); group (N,): pictures of one group (a caption's) stand and fall together. None: each for itself.

    Groups may differ in size, so the error is the ratio estimator's, √(G / (G − 1) · Σ_g (Σ_{i in g} (v_i − mean))²) / N.
    """
    values = values.double()
    middle = values.mean()
    labels = list(range(len(values))) if group is None else list(group)
    number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    sums = torch.zeros(len(number), dtype=torch.double)
    sums.index_add_(0, torch.tensor([number[label] for label in labels]), values - middle)
    g = len(number)
    error = float((sums.square().sum() * g / (g - 1)).sqrt() / len(values)) if g > 1 else float("nan")
    return Mean(float(middle), error, len(values), g)


def ranks(embeddings: Tensor, gallery: Tensor, noun: Tensor, own: Tensor, allowed: Tensor | None = None) -> Tensor:
    """How many nouns lie nearer to each picture than its own one: (N,). 0 is a hit, < 5 is in the top five.

    A noun is as near as the nearest of its gallery pictures. By chance the top k hold the noun in k of `nouns` cases.

    Args:
        embeddings, gallery: unit rows, (N, d) and (M, d).
        noun: number of each gallery picture's noun, (M,).
        own: number of each picture's right noun, (N,).
        allowed: which gallery pictures may be looked at, (N, M); None: all.
    """
    near = embeddings @ gallery.T
    if allowed is not None:
        near = near.masked_fill(~allowed, -2)
    nouns = near.new_full((len(near), int(noun.max()) + 1), -2)
    nouns.scatter_reduce_(1, noun.expand(len(near), -1), near, "amax")
    return (nouns > nouns.gather(1, own[:, None])).sum(1)


def new_pairs(rows: Iterable[Named], objects: Sequence[str]) -> list[tuple[str, str]]:
    """Every object with the first six of COLOURS that no row shows it in.

    Raises:
        ValueError: an object is shown in so many colours that fewer than six are left.
    """
    shown = {(row.name, row.colour) for row in rows}
    pairs = []
    for name in objects:
        colours = [colour for colour in COLOURS if (name, colour) not in shown][:COLOURS_A_PAIR]
        if len(colours) < COLOURS_A_PAIR:
            raise ValueError(f"{name} is shown in all colours but {colours}: it makes no {COLOURS_A_PAIR} new pairs")
        pairs += [(name, colour) for colour in colours]
    return pairs


def cut_out(picture: Tensor) -> Image.Image:
    """A uint8 picture (3, H, W) on white -> RGBA; what is nearly white and joined to the edge is page, not drawing."""
    paper = picture.amin(0).numpy() >= 255 - PAPER
    around = np.zeros((picture.shape[1] + 2, picture.shape[2] + 2), dtype=bool)  # one pixel of page on every side
    around[[0, -1]] = around[:, [0, -1]] = True
    size = -1
    while size < (size := int(around.sum())):
        inside = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
        around[1:-1, 1:-1] |= inside & paper
    alpha = np.where(around[1:-1, 1:-1], 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([picture.permute(1, 2, 0).numpy(), alpha]))


def colour_of(picture: Tensor) -> str:
    """Name of the main colour of a uint8 picture (3, H, W) on white, or "" if there is none."""
    main = main_colour(cut_out(picture))
    return main.name if main else ""


def white_border(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of uint8 pictures (N, 3, H, W), about their outermost pixels: whether most are white (≥ 0.97 of 255), (N,); whether they
    are almost white on average (> 0.95), (N,)."""
    width = max(1, pictures.shape[-1] // BORDER)
    edge = torch.ones(pictures.shape[-2:], dtype=torch.bool)
    edge[width:-width, width:-width] = False
    values = pictures[..., edge].float().mean(1) / 255
    return (values >= 0.97).float().mean(1) > 0.5, values.mean(1) > 0.95


def pairwise(x: Tensor, y: Tensor) -> Tensor:
    """k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(x_j, y_i) of features (n, d), (n, d) in one order: (n, n), double.

    k is KID's own kernel, (⟨a, b⟩ / d + 1)³ (Bińkowski et al. 2018, arXiv 1801.01401).
    """
    both = torch.cat([x, y]).double()
    k = (both @ both.T / x.shape[1] + 1) ** 3
    n = len(x)
    return k[:n, :n] + k[n:, n:] - k[:n, n:] - k[n:, :n]


def kid(pairs: Tensor) -> float:
    """Kernel inception distance from `pairwise`: the mean off the diagonal. 0 by chance for equal distributions.

    Unbiased, so it may be negative (Gretton et al. 2012, equation 4); without the diagonal, a drawing of a noun is never
    compared with the real picture of the same noun, which would make likeness of content pass for likeness of style.
    """
    n = len(pairs)
    return float((pairs.sum() - pairs.trace()) / (n * (n - 1)))


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


def jackknife(count: int, statistic: Callable[[Tensor], float], groups: int = GROUPS) -> Estimate:
    """A statistic of all pictures; its error from its spread over the subsets that leave one group in `groups` out.

    Args:
        count: pictures; the i-th is in group i mod `groups`.
        statistic: of the numbers of the pictures that are kept.
    """
    number, groups = torch.arange(count), min(groups, count)
    without = torch.tensor([statistic(number[number % groups != g]) for g in range(groups)], dtype=torch.double)
    error = ((groups - 1) / groups * (without - without.mean()).square().sum()).sqrt()
    return Estimate(statistic(number), float(error))
