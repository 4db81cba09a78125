"""The figures of a sweep: style, prompts, diversity and their sum, for every setting from the same prompts and noise.

All settings share prompts, noise and reference pictures, so that what differs between them is the setting, and the standard
error of a difference is far smaller than that of a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.evaluation.distances import bandwidth, kernel, mmd2, modes, separation, spread

FEWEST = 4
"""Pictures, drawn or reference: of fewer nothing is estimated."""


@dataclass(frozen=True)
class Seen:
    """What was seen of each setting; the base's comes first.

    Attributes:
        features: (S, N, d), fp64: N pictures of S settings, in one order of prompts and seeds.
        hits: (S, N): whether a picture shows its prompt; None: there is only one prompt.
        own: number of each picture's prompt (N,).
        reference: features of the reference pictures (M, d), or None.
    """

    features: Tensor
    hits: Tensor | None
    own: Tensor
    reference: Tensor | None

    @property
    def groups(self) -> Tensor:
        """What is left out together (N,): a prompt's pictures where there are prompts enough, else each picture."""
        return self.own if len(set(self.own.tolist())) >= FEWEST else torch.arange(len(self.own))


@dataclass(frozen=True)
class Quality:
    """Figures of S settings; the base's come first.

    Attributes:
        style: 1 - MMD² to the reference ÷ the base's (S,): 0 is the base, 1 is like the reference; None without a reference.
        style_error: its standard errors (S,).
        prompt: share of pictures that show their prompt (S,), or None.
        diversity: effective number of different pictures ÷ the base's (S,).
        score: style + prompt + diversity up to 1 (S,); None without a reference.
        separation: how well the features tell reference pictures from the base's drawings, 0.5 … 1.
        far: MMD² of the base in standard errors: of a base that is near already, nothing can be learned.
    """

    style: Tensor | None
    style_error: Tensor | None
    prompt: Tensor | None
    diversity: Tensor | None
    score: Tensor | None
    separation: float | None = None
    far: float | None = None


class Measured:
    """Kernels of what was seen, and every figure as a function of the weights of pictures."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        against = seen.features[0] if seen.reference is None else seen.reference
        width = bandwidth(against)
        self.xx = torch.stack([kernel(x, x, width) for x in seen.features])
        self.xy = None if seen.reference is None else torch.stack([kernel(x, against, width) for x in seen.features])
        self.yy = kernel(against, against, width)
        own = bandwidth(seen.features[0]) / 2
        self.alike = torch.stack([kernel(x, x, own) for x in seen.features])
        self.all = torch.ones(seen.features.shape[1], dtype=torch.float64)
        self.known = torch.ones(len(against), dtype=torch.float64)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """MMD² of each setting to the reference (S,)."""
        assert self.xy is not None, "there is a reference"
        return mmd2(self.xx, self.xy, self.yy, x, y)

    def style(self, x: Tensor, y: Tensor) -> Tensor:
        found = self.distance(x, y)
        return 1 - found / found[0]

    def prompt(self, x: Tensor) -> Tensor | None:
        hits = self.seen.hits
        return None if hits is None else (hits.double() @ x) / x.sum()

    def diversity(self, x: Tensor) -> Tensor:
        found = modes(self.alike, x)
        return found / found[0]

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """Style + prompt + diversity up to 1 (S,): each is 1 where nothing is left to be wished for."""
        prompt = self.prompt(x)
        return self.style(x, y) + (0 if prompt is None else prompt) + self.diversity(x).clamp(max=1)

    def quality(self) -> Quality:
        x, y, seen = self.all, self.known, self.seen
        enough = len(x) >= FEWEST
        diversity = self.diversity(x) if enough else None
        if self.xy is None or not enough:
            return Quality(None, None, self.prompt(x), diversity, None)
        far = self.distance(x, y)[0] / spread(lambda a, b: self.distance(a, b)[:1], seen.groups, len(y))[0]
        return Quality(
            style=self.style(x, y),
            style_error=spread(self.style, seen.groups, len(y)),
            prompt=self.prompt(x),
            diversity=diversity,
            score=self.score(x, y),
            separation=separation(self.xx[0], self.xy[0], self.yy),
            far=float(far),
        )
