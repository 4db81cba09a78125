"""Several contrasts → one prediction, with as few forward passes as there are predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from conditioning.condition import Condition
from conditioning.guidance.arithmetic import rescaled
from conditioning.guidance.base import Branch, Contrast, Moment, Predictor

ALONE = "branches are run one by one"
"""Key of the loop's memory: a batch of all branches did not fit."""


@dataclass(frozen=True)
class Guided:
    """Contrasts that add up: c + Σ (guided by one - c).

    Attributes:
        contrasts: in any order; without any that is not neutral, it is the conditional prediction, bit for bit.
        rescale: 0 … 1, how far the standard deviation of the whole is brought back to the conditional's.
    """

    contrasts: Sequence[Contrast]
    rescale: float = 0.0

    def __call__(
        self,
        predictors: Mapping[str, Predictor],
        x_t: Tensor,
        moment: Moment,
        condition: Condition,
        negative: Condition,
    ) -> Tensor:
        return total(self.contrasts, predictors, x_t, moment, condition, negative, self.rescale)


def total(
    contrasts: Sequence[Contrast],
    predictors: Mapping[str, Predictor],
    x_t: Tensor,
    moment: Moment,
    condition: Condition,
    negative: Condition,
    rescale: float = 0.0,
) -> Tensor:
    """The prediction of several contrasts at once; see `Guided`."""
    asked = [(contrast, contrast.branches(moment, condition, negative)) for contrast in contrasts]
    active = [(contrast, list(branches)) for contrast, branches in asked if branches is not None]
    if not active:
        return predictors["main"](x_t, moment.t.expand(len(x_t)), condition)
    wanted = [branch for _, branches in active for branch in branches]
    found = run([*wanted, Branch(condition)], predictors, x_t, moment)
    conditional, guided = found[-1], None
    for contrast, branches in active:
        own, found = found[: len(branches)], found[len(branches) :]
        pushed = contrast.combined(moment, conditional, own)
        guided = pushed if guided is None else guided + (pushed - conditional)
    assert guided is not None, "there is an active contrast"
    return rescaled(guided, conditional, rescale)


def run(branches: Sequence[Branch], predictors: Mapping[str, Predictor], x_t: Tensor, moment: Moment) -> list[Tensor]:
    """The prediction of each branch (B, C, *dims): one forward pass a predictor; the same branch is run once."""
    unique = {_key(branch): branch.condition for branch in branches}
    found: dict[tuple[str, frozenset[tuple[str, int]]], Tensor] = {}
    for name in dict.fromkeys(branch.predictor for branch in branches):
        keys = [key for key in unique if key[0] == name]
        predicted = _predicted(predictors[name], x_t, moment, [unique[key] for key in keys])
        found.update(zip(keys, predicted, strict=True))
    return [found[_key(branch)] for branch in branches]


def _key(branch: Branch) -> tuple[str, frozenset[tuple[str, int]]]:
    """Branches that are told the same tensors are the same."""
    told = branch.condition
    named = [(f"{part}.{name}", x) for part, found in told.parts.items() for name, x in found.items()]
    return branch.predictor, frozenset((name, id(x)) for name, x in [*named, *told.facts.items()])


def _predicted(predict: Predictor, x_t: Tensor, moment: Moment, conditions: Sequence[Condition]) -> Sequence[Tensor]:
    joined = None if ALONE in moment.memory else _joined(conditions)
    if joined is not None:
        try:
            rows = torch.cat([x_t] * len(conditions))
            return predict(rows, moment.t.expand(len(rows)), joined).chunk(len(conditions))
        except torch.OutOfMemoryError:
            if len(conditions) == 1:
                raise
            moment.memory[ALONE] = True
    return [predict(x_t, moment.t.expand(len(x_t)), condition) for condition in conditions]


def _joined(conditions: Sequence[Condition]) -> Condition | None:
    """All rows in one condition; None where they cannot stand in one batch (tokens of other lengths without a mask)."""
    try:
        return conditions[0] if len(conditions) == 1 else Condition.cat(conditions)
    except ValueError:
        return None
