"""Classifier guidance: towards clean pictures that any differentiable score likes.

The score of p(x_t | y) is that of p(x_t) plus ∇ log p(y | x_t) (Dhariwal & Nichol 2021, arXiv 2105.05233, equations 10 to 14). A
classifier of noised pictures is seldom at hand, so the one of clean ones is asked about the clean picture that the prediction
stands for (universal guidance, Bansal et al. 2023, arXiv 2302.07121, equations 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.base import Guidance, Moment, Predictor
from conditioning.guidance.dial import Dial

Score = Callable[[Tensor], Tensor]
"""`score(x (B, C, *dims)) -> (B,)` of clean x, differentiable, each row for itself; higher is better: log p(y | x), say."""
BLIND = 1e-3
"""With less of the clean picture in x_t than this share there is nothing to be guided."""


class Noising(Protocol):
    """How x_t is made, and what a prediction says of x; t (B,). adapt's objectives are such."""

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor: ...

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ClassifierGuidance:
    """The prediction of p(x_t) · p(y | x_t)^(scale - 1). For noise ε it is ε - (scale - 1) · σ · ∇ score, and what that is for v,
    x and flow. As everywhere here scale 1 is neutral, and then the score is not asked; papers count from 0.

    Attributes:
        score: of the clean x; latents, or with a decoder inside it pictures.
        noising: of the model.
        dial: the scale over the loop.
        inner: what guides besides; None: the conditional prediction is what is corrected.
        through_network: the gradient is that of x_t, through the network, as in the papers: a forward and a backward pass.
            False: the network's own answer counts as fixed; one forward pass, and a rougher direction.
    """

    score: Score
    noising: Noising
    dial: Dial = field(default_factory=Dial)
    inner: Guidance | None = None
    through_network: bool = True

    def __call__(
        self,
        predictors: Mapping[str, Predictor],
        x_t: Tensor,
        moment: Moment,
        condition: Condition,
        negative: Condition,
    ) -> Tensor:
        t = moment.t.expand(len(x_t))

        def predict(x: Tensor) -> Tensor:
            if self.inner is None:
                return predictors["main"](x, t, condition)
            return self.inner(predictors, x, moment, condition, negative)

        if (scale := self.dial.at(moment)) == 1:
            return predict(x_t)
        asked = towards if self.through_network else towards_alone
        prediction, gradient = asked(self.score, self.noising, predict, x_t, t)
        return corrected(self.noising, prediction, gradient, t, scale - 1)


def towards(
    score: Score, noising: Noising, predict: Callable[[Tensor], Tensor], x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """The prediction at x_t, and ∇_{x_t} score(x̂(x_t)); both (B, C, *dims)."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        prediction = predict(x)
        (gradient,) = torch.autograd.grad(scored(score, noising.clean(x, prediction, t)).sum(), x)
    return prediction.detach(), gradient


def towards_alone(
    score: Score, noising: Noising, predict: Callable[[Tensor], Tensor], x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """The same as if what x_t has too much of had nothing to do with x_t: ∇_x̂ score(x̂) / α."""
    prediction = predict(x_t)
    with torch.enable_grad():
        clean = noising.clean(x_t, prediction, t).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(scored(score, clean).sum(), clean)
    signal = noising.noised(_ones(x_t), 0 * _ones(x_t), t)
    return prediction, gradient / signal.clamp(min=BLIND)


def scored(score: Score, clean: Tensor) -> Tensor:
    """The score of each row.

    Raises:
        ValueError: it is no number a row, or does not depend on what it is given.
    """
    values = score(clean)
    if values.shape != (len(clean),):
        raise ValueError(f"a score is one number a row, {(len(clean),)}: found {tuple(values.shape)}")
    if not values.requires_grad:
        raise ValueError("a score must be differentiable: this one does not depend on what it is given")
    return values


def corrected(noising: Noising, prediction: Tensor, gradient: Tensor, t: Tensor, weight: float) -> Tensor:
    """The prediction whose x̂ lies weight · σ² / α · gradient further: that is ε - weight · σ · gradient in any of its forms.

    x̂ is linear in the prediction, with a factor that `noising.clean` tells. At pure noise (α = 0) nothing is changed.
    """
    one = _ones(prediction)
    signal, sigma = noising.noised(one, 0 * one, t), noising.noised(0 * one, one, t)
    factor = noising.clean(0 * one, one, t)
    moved = weight * sigma.square() / (signal.clamp(min=BLIND) * factor) * gradient
    return torch.where((signal > BLIND) & (factor != 0), prediction + moved.to(prediction), prediction)


def _ones(like: Tensor) -> Tensor:
    """(B, 1, …, 1)."""
    return like.new_ones(len(like), *[1] * (like.ndim - 1))
