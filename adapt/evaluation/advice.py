"""Which of a sweep's settings is recommended, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.evaluation.distances import spread
from adapt.evaluation.grid import Grid, Setting
from adapt.evaluation.quality import Measured, Quality

TIE, COLLAPSE, APART = 0.5, 0.5, 0.8
FAR = 1.645
"""Standard errors: one-sided 95 %."""


@dataclass(frozen=True)
class Advice:
    """Attributes:
    setting: what is recommended; None: nothing can be.
    reason: by which figures, or why nothing is.
    """

    setting: Setting | None
    reason: str


def advise(grid: Grid, measured: Measured, quality: Quality) -> Advice:
    """The cheapest setting that is as good as the best.

    1. A setting whose pictures are less than half as diverse as the base's has collapsed and is left out.
    2. The score (style + prompt + diversity up to 1) is smoothed over neighbours on each axis (¼, ½, ¼): the best of many noisy
       figures is usually the luckiest, and neighbours share no luck.
    3. Settings within half a standard error of the best (paired: same prompts, noise and reference pictures) are as good.
    4. Of those, the one with the fewest evaluations of the network; of several, the best.

    Args:
        measured, quality: of the base and of every setting, in the grid's order.
    """
    if (why := _untold(quality)) is not None:
        return Advice(None, why)
    assert quality.score is not None and quality.diversity is not None, "there is a reference"
    alive = quality.diversity[1:] >= COLLAPSE
    if not bool(alive.any()):
        return Advice(None, "every setting's pictures are less than half as diverse as the base's")
    smooth = smoothed(quality.score[1:], grid.shape)
    best = int(smooth.masked_fill(~alive, -torch.inf).argmax())
    error = spread(
        lambda x, y: _behind(measured.score(x, y)[1:], grid, best), measured.seen.groups, len(measured.known)
    )
    behind = smooth[best] - smooth
    as_good = [i for i in range(len(grid)) if bool(alive[i]) and float(behind[i]) <= TIE * float(error[i])]
    settings = grid.settings
    chosen = min(as_good, key=lambda i: (settings[i].work(grid.passes), -float(smooth[i])))
    return Advice(settings[chosen], _reason(grid, quality, chosen, best, len(as_good)))


def _behind(score: Tensor, grid: Grid, best: int) -> Tensor:
    smooth = smoothed(score, grid.shape)
    return smooth[best] - smooth


def smoothed(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values of a grid, in its order, averaged with their neighbours on each axis by ¼, ½, ¼; at the edge by ⅔, ⅓."""
    found = values.reshape(shape)
    for axis, length in enumerate(shape):
        found = torch.tensordot(_neighbours(length), found, dims=([1], [axis])).movedim(0, axis)
    return found.reshape(-1)


def _neighbours(length: int) -> Tensor:
    """(length, length), rows sum to 1."""
    ones = torch.ones(length, dtype=torch.float64)
    matrix = 2 * torch.diag(ones) + torch.diag(ones[1:], 1) + torch.diag(ones[1:], -1)
    return matrix / matrix.sum(1, keepdim=True)


def _untold(quality: Quality) -> str | None:
    """Why nothing can be recommended; None: it can."""
    if quality.score is None or quality.separation is None or quality.far is None:
        return "nothing to compare with: --reference FOLDER of pictures of the style, four or more, and as many drawn"
    if quality.far < FAR:
        return (
            f"the base's own pictures are as near to the reference as chance ({quality.far:.1f} standard errors away)"
        )
    if quality.separation < APART:
        return (
            f"the features do not tell the reference from the base's pictures (area under the curve "
            f"{quality.separation:.2f}; {APART:g} is needed)"
        )
    return None


def _reason(grid: Grid, quality: Quality, chosen: int, best: int, as_good: int) -> str:
    settings = grid.settings
    told = f"{settings[chosen]}: {_figures(quality, chosen)}"
    if chosen == best:
        return f"{told}; the best of {len(settings)} with its neighbours, and none cheaper is as good"
    more = settings[best].work(grid.passes) / settings[chosen].work(grid.passes)
    return (
        f"{told}; the cheapest of {as_good} within half a standard error of the best of {len(settings)} "
        f"({settings[best]}: {_figures(quality, best)}; {more:.1f} × the work)"
    )


def _figures(quality: Quality, index: int) -> str:
    assert quality.style is not None and quality.style_error is not None and quality.diversity is not None
    place = index + 1  # the base comes first
    prompt = "" if quality.prompt is None else f", prompts {float(quality.prompt[place]):.2f}"
    style = f"style {float(quality.style[place]):.2f} ± {float(quality.style_error[place]):.2f}"
    return f"{style}{prompt}, diversity {float(quality.diversity[place]):.2f}"
