"""One training step, as the papers write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.sources import PART as SOURCE
from adapt.config import TrainSettings
from adapt.data import EncodedPictures
from adapt.data.plan import Plan, Rows
from adapt.lora import Network
from adapt.objectives import PLAIN, Noise, Objective, Prior, Target
from adapt.training.hearing import Hearing
from adapt.training.raw import RAW, sources
from conditioning import Condition, Dropout, Part


@dataclass(frozen=True)
class Course:
    """Everything that stays the same while a run trains.

    Attributes:
        injection: what is trained.
        noise: what pictures are mixed with.
        prior: keeps the base's word on a class; None: off.
        prior_target: what pictures of the class (`Picture.prior`) are compared with; None: `target`, as all others.
        keeping: around a forward pass that is followed back: where it keeps what it needs for that.
        hearing: encodes captions while text encoders are trained; None: what they say is known, and comes from the cache.
    """

    settings: TrainSettings
    backbone: Backbone
    injection: Network
    objective: Objective
    target: Target
    plan: Plan
    examples: EncodedPictures
    null: Condition
    noise: Noise = PLAIN
    prior: Prior | None = None
    prior_target: Target | None = None
    hearing: Hearing | None = None
    keeping: Callable[[], AbstractContextManager[None]] = nullcontext


def row_losses(course: Course, rows: Rows) -> Tensor:
    """The weighted loss of each of these rows of the global batch (n,), fp32 (fp64 for an fp64 model)."""
    backbone, objective = course.backbone, course.objective
    course.injection.move(rows.step, rows.positions)
    x = latents(course, rows)  # (n, C, *dims)
    heard = with_source(course, rows, conditions(course, rows))  # n rows; some are null
    condition = with_taught(course, rows, heard)
    t = objective.times(rows.quantiles(), x.shape[2:]).to(x.device)  # (n,)
    noise = noises(course, rows, x)  # (n, C, *dims)
    x_t = objective.noised(x, course.noise.perturbed(noise, rows.noise), t)  # (n, C, *dims)
    target = targets(course, rows, x, noise, t, as_base(course, rows, heard))  # (n, C, *dims)
    prediction = backbone.predict(x_t, t, condition)  # (n, C, *dims)
    losses = objective.losses(prediction, target, t, areas(course, rows, x))
    losses = losses * row_weights(course, rows).to(losses)
    return losses if course.prior is None else losses + course.prior.losses(x_t, t)


def latents(course: Course, rows: Rows) -> Tensor:
    """Samples of the pictures' posteriors; the sample's noise is the Plan's."""
    moments = [course.examples.latents(*view) for view in views(course, rows)]
    mean, std = (torch.stack(values) for values in zip(*moments, strict=True))
    like = course.backbone
    return (mean + std * rows.noise(mean.shape[1:], "posterior").to(mean)).to(like.device, like.dtype)


def views(course: Course, rows: Rows) -> list[tuple[int, bool, int]]:
    """Which example stands in each row, whether it is mirrored, and which variant of it is seen."""
    flips, variants = rows.flipped(course.settings.flip), rows.variants(course.examples.augmentation.variants)
    return list(zip(rows.items(), flips, variants, strict=True))


def areas(course: Course, rows: Rows, x: Tensor) -> Tensor | None:
    """How much each place of the latents counts (n, 1, *dims), from the pictures' masks; None: all alike."""
    found = [course.examples.weight(*view) for view in views(course, rows)]
    if all(area is None for area in found):
        return None
    everywhere = torch.ones(1, *x.shape[2:])
    return torch.stack([everywhere if area is None else area for area in found]).to(x.device)


def noises(course: Course, rows: Rows, x: Tensor) -> Tensor:
    """The noise of each row, shaped like x."""
    return course.noise(x, rows.noise, lambda stream: rows.plan.uniform(stream, rows.step, 0))


def conditions(course: Course, rows: Rows) -> Condition:
    """One caption of each picture; dropped ones are null."""
    seen = [course.examples.sizes(*view) for view in views(course, rows)]
    if course.hearing is not None:
        return with_nulls(course, rows, course.hearing.learn(said(course, rows), seen))
    beside = course.backbone.reads_source  # what it makes of no words depends on the picture
    captions = said(course, rows) if beside else chosen(course, rows)
    told = zip(captions, views(course, rows), strict=True)
    encoded = [course.examples.words(caption, *view) for caption, view in told]
    found = Condition.cat([course.backbone.assembled(part, [s]) for part, s in zip(encoded, seen, strict=True)])
    found = found.to(course.backbone.device, course.backbone.dtype)
    return found if beside else with_nulls(course, rows, found)


def with_source(course: Course, rows: Rows, condition: Condition) -> Condition:
    """The condition with what each picture was before, where the base edits; of dropped rows the null, zeros. Where the base
    fills holes, with the picture around one of its holes."""
    if not course.backbone.takes_source:
        return condition
    part = sources(course.examples, views(course, rows), rows.holes(course.examples.holes))
    found = condition.replaced({SOURCE: part}).to(course.backbone.device, course.backbone.dtype)
    dropped = {name: x.to(course.backbone.device) for name, x in dropped_rows(course, rows).items() if name == SOURCE}
    nothing = {name: torch.zeros_like(x) for name, x in found.parts[SOURCE].items()}
    return found.drop(dropped, Condition({SOURCE: nothing}))


def with_taught(course: Course, rows: Rows, condition: Condition) -> Condition:
    """The condition with the parts that are taught (class, reference picture) of each row; dropped ones are null."""
    if not course.injection.taught:
        return condition
    nulls: dict[str, Part] = {}
    for name, taught in course.injection.taught.items():
        condition = taught.told(condition, RAW[name](course.examples, views(course, rows)))
        nulls |= taught.null(condition)
    dropped = {name: x.to(course.backbone.device) for name, x in dropped_rows(course, rows).items() if name in nulls}
    return condition.drop(dropped, Condition(nulls)).to(course.backbone.device, course.backbone.dtype)


def dropout(settings: TrainSettings, part: str) -> Dropout:
    """How often each part of the condition is dropped, alone and with others.

    Args:
        part: the one that captions become.
    """
    named = {"caption": part}
    return Dropout({tuple(named.get(p, p) for p in parts): share for parts, share in settings.dropouts.items()})


def dropped_rows(course: Course, rows: Rows) -> dict[str, Tensor]:
    """Part → which rows go without it (n,), bool: a function of (seed, step, position)."""
    return dropout(course.settings, course.backbone.caption_part).dropped(rows.uniform("drop"))


def as_base(course: Course, rows: Rows, condition: Condition) -> Condition:
    """What the base hears in their place, for targets that ask it: it knows no classes."""
    settings = course.settings
    asked = settings.anchor_above is not None or settings.prior_target == "base"
    if course.hearing is None or not asked:
        return condition
    seen = [course.examples.sizes(*view) for view in views(course, rows)]
    return with_source(course, rows, with_nulls(course, rows, course.hearing.base(said(course, rows), seen)))


def chosen(course: Course, rows: Rows) -> list[str]:
    """One caption of each picture (n,)."""
    captions = [course.examples.captions(i) for i in rows.items()]
    return [c[k] for c, k in zip(captions, rows.choice([len(c) for c in captions]), strict=True)]


def said(course: Course, rows: Rows) -> list[str]:
    """What is said to encoders that are asked anew, or that see the picture too (n,): of dropped captions nothing, so that they
    learn what that means."""
    dropped = dropped_rows(course, rows)[course.backbone.caption_part].tolist()
    return ["" if gone else caption for gone, caption in zip(dropped, chosen(course, rows), strict=True)]


def with_nulls(course: Course, rows: Rows, found: Condition) -> Condition:
    """Dropped rows are null; where null is what an encoder that is trained makes of "", they are so already."""
    if course.hearing is not None and course.backbone.null_kind == "empty":
        return found
    dropped = {name: x.to(course.backbone.device) for name, x in dropped_rows(course, rows).items()}
    return found.drop(dropped, course.null.expand(len(found)))


def of_prior(course: Course, rows: Rows) -> Tensor:
    """Which rows are pictures of the class, not of what is taught (n,), bool."""
    return torch.tensor([course.examples.pictures[i].prior for i in rows.items()])


def row_weights(course: Course, rows: Rows) -> Tensor:
    """`prior_weight` for pictures of the class, 1 for the others (n,)."""
    return torch.where(of_prior(course, rows), course.settings.prior_weight, 1.0)


def targets(course: Course, rows: Rows, x: Tensor, noise: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """What each row is compared with, shaped like x."""
    target = course.target(x, noise, t, condition)
    index = of_prior(course, rows).nonzero().flatten().to(x.device)
    if course.prior_target is None or len(index) == 0:
        return target
    taught = course.prior_target(x[index], noise[index], t[index], condition.rows(index))
    return target.index_copy(0, index, taught)


def at_once(settings: TrainSettings, processes: int) -> int:
    """Rows of one forward pass of a process."""
    return settings.batch_size // processes // settings.accumulation


def pieces(settings: TrainSettings, process: int, processes: int) -> list[Sequence[int]]:
    """The positions of the global batch that a process takes, cut into `accumulation` pieces."""
    size = at_once(settings, processes)
    first = process * size * settings.accumulation
    return [range(first + k * size, first + (k + 1) * size) for k in range(settings.accumulation)]
