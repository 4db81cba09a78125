"""Adaptive guidance (Castillo et al. 2023, arXiv 2312.12487): once the null prediction says what the conditional one says, it is
no longer asked for, and the rest of the loop costs half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.base import Branch, Contrast, Moment
from conditioning.guidance.classifier_free import ClassifierFreeGuidance

MEMORY = "rows whose guidance is over"


@dataclass(frozen=True)
class AdaptiveGuidance(Contrast):
    """Classifier-free guidance of each row until cos(c, n) > threshold, then the conditional prediction (the paper's section 5).

    Each row is judged by itself, so that no picture depends on its neighbours; the null is left out when all rows are done.
    How soon they agree depends on model, prompt and what is predicted: on `icons` (v prediction) 0.95 is reached half-way, and
    0.991, the paper's, hardly ever.

    Attributes:
        guidance: what works until then.
        threshold: -1 … 1; 1 is never reached: plain classifier-free guidance, bit for bit.
    """

    guidance: ClassifierFreeGuidance
    threshold: float = 0.991

    def branches(self, moment: Moment, condition: Condition, negative: Condition) -> Sequence[Branch] | None:
        over: Tensor | None = moment.memory.get(MEMORY)
        if over is not None and bool(over.all()):
            return None
        return self.guidance.branches(moment, condition, negative)

    def combined(self, moment: Moment, conditional: Tensor, found: Sequence[Tensor]) -> Tensor:
        guided = self.guidance.combined(moment, conditional, found)
        before: Tensor | None = moment.memory.get(MEMORY)
        agreed = similarity(conditional, found[0]) > self.threshold
        moment.memory[MEMORY] = agreed if before is None else before | agreed
        if before is None:
            return guided
        return torch.where(before.view(-1, *[1] * (guided.ndim - 1)), conditional, guided)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between rows (B, …) → (B,), at most 1; computed in fp32."""
    return F.cosine_similarity(a.float().flatten(1), b.float().flatten(1)).clamp(max=1)
