"""One training step, as the papers write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data import EncodedPictures
from adapt.data.plan import Plan, Rows
from adapt.lora import Injection
from adapt.objectives import Objective, Target
from conditioning import Condition


@dataclass(frozen=True)
class Course:
    """Everything that stays the same while a run trains."""

    settings: TrainSettings
    backbone: Backbone
    injection: Injection
    objective: Objective
    target: Target
    plan: Plan
    examples: EncodedPictures
    null: Condition


def row_losses(course: Course, rows: Rows) -> Tensor:
    """The weighted loss of each of these rows of the global batch (n,), fp32 (fp64 for an fp64 model)."""
    backbone, objective = course.backbone, course.objective
    x = latents(course, rows)  # (n, C, *dims)
    condition = conditions(course, rows)  # n rows; some are null
    t = objective.times(rows.quantiles()).to(x.device)  # (n,)
    noise = rows.noise(x.shape[1:]).to(x)  # (n, C, *dims)
    course.injection.dice.step, course.injection.dice.positions = rows.step, rows.positions
    target = course.target(x, noise, t, condition)  # (n, C, *dims)
    prediction = backbone.predict(objective.noised(x, noise, t), t, condition)  # (n, C, *dims)
    return objective.losses(prediction, target, t)


def latents(course: Course, rows: Rows) -> Tensor:
    """Samples of the pictures' posteriors; the sample's noise is the Plan's."""
    flips = rows.flipped(course.settings.flip)
    moments = [course.examples.latents(i, flip) for i, flip in zip(rows.items(), flips, strict=True)]
    mean, std = (torch.stack(values) for values in zip(*moments, strict=True))
    like = course.backbone
    return (mean + std * rows.noise(mean.shape[1:], "posterior").to(mean)).to(like.device, like.dtype)


def conditions(course: Course, rows: Rows) -> Condition:
    """One caption of each picture; dropped ones are null."""
    items = rows.items()
    captions = [course.examples.captions(i) for i in items]
    chosen = [c[k] for c, k in zip(captions, rows.choice([len(c) for c in captions]), strict=True)]
    found = Condition.cat([Condition({"text": course.examples.text(caption)}) for caption in chosen])
    found = found.to(course.backbone.device, course.backbone.dtype)
    dropped = rows.dropped(course.settings.caption_dropout).to(course.backbone.device)
    return found.drop(dict.fromkeys(found.parts, dropped), course.null.expand(len(items)))


def pieces(settings: TrainSettings, process: int, processes: int) -> list[Sequence[int]]:
    """The positions of the global batch that a process takes, cut into `accumulation` pieces."""
    share = settings.batch_size // processes
    size = share // settings.accumulation
    first = process * share
    return [range(first + k * size, first + (k + 1) * size) for k in range(settings.accumulation)]
