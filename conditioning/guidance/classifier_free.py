"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6), in diffusers' convention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.base import Moment, Predictor

Normalise = Callable[[Tensor, Tensor], Tensor]
"""`normalise(guided, conditional) -> guided'`, all (B, C, *dims): what some families do to a guided prediction."""


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """prediction = negative + scale · (conditional - negative), rescaled.

    Attributes:
        scale: 1 is neutral and then the negative branch is not run (n + 1 · (c - n) is not c in floating point);
            above 1 follows the condition more closely.
        rescale: 0 … 1, how far the standard deviation is brought back to the conditional's, against over-exposure
            (Lin et al. 2023, arXiv 2305.08891, section 3.4).
        start, stop: share of the loop, 0 … 1, in which guidance works (Kynkäänniemi et al. 2024, arXiv 2404.07724).
        normalise: the family's own; before `rescale`.
    """

    scale: float = 1.0
    rescale: float = 0.0
    start: float = 0.0
    stop: float = 1.0
    normalise: Normalise | None = None

    def __call__(
        self,
        predictors: Mapping[str, Predictor],
        x_t: Tensor,
        moment: Moment,
        condition: Condition,
        negative: Condition,
    ) -> Tensor:
        predict, rows = predictors["main"], len(x_t)
        if self.scale == 1 or not self.start <= moment.index / moment.steps < self.stop:
            return predict(x_t, moment.t.expand(rows), condition)
        both = predict(torch.cat([x_t, x_t]), moment.t.expand(2 * rows), Condition.cat([negative, condition]))
        n, c = both.chunk(2)  # (B, C, *dims) each
        guided = n + self.scale * (c - n)
        return self._rescaled(guided if self.normalise is None else self.normalise(guided, c), c)

    def _rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        if self.rescale == 0:
            return guided
        dims = tuple(range(1, guided.ndim))
        matched = guided * (conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
        return self.rescale * matched + (1 - self.rescale) * guided
