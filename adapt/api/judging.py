"""How held-out pictures are measured in a run, and as many training pictures beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data import EncodedPictures
from adapt.evaluation.held_out import HeldOut
from adapt.lora.taught import Taught
from adapt.objectives import TimeSampling
from adapt.training.hearing import Hearing
from adapt.training.raw import RAW
from adapt.training.step import Course, at_once
from adapt.training.validation import Judge, Measured, measure_base
from adapt.types import Sizes
from conditioning import Condition

NOTHING: Mapping[str, Taught] = {}


def make_judge(course: Course, held_out: EncodedPictures, processes: int = 1) -> Judge:
    """Held-out pictures against the same target as in training, over the same range of times, with even weights.

    The base is measured here, with the adapter disabled.

    Args:
        processes: that share a batch: a forward pass of a measurement has as many rows as one of training, whose memory is there.
    """
    settings, backbone = course.settings, course.backbone
    even = TimeSampling(backbone.time_sampling, low=settings.time_low, high=settings.time_high)
    objective = backbone.objective(even, zero_terminal_snr=settings.zero_terminal_snr)
    target = course.target.under(objective)
    wanted = len(held_out) if settings.validation_members is None else settings.validation_members
    rows = at_once(settings, processes)
    members = spread(taught(course.examples), wanted)

    def measured(examples: EncodedPictures, indices: Sequence[int]) -> Measured:
        pictures = grid(backbone, examples, indices, settings, rows, course.hearing, course.injection.taught)
        return measure_base(pictures, backbone, objective, target, settings.anchor_above)

    with course.injection.disabled():
        known = measured(course.examples, members) if members else None
        return Judge(objective, target, measured(held_out, range(len(held_out))), known)


def taught(examples: EncodedPictures) -> list[int]:
    """Pictures that are learned, at the first resolution: not those that only keep the base's word on a class."""
    return [i for i in range(examples.count) if not examples.pictures[i].prior]


def spread(places: Sequence[int], wanted: int) -> list[int]:
    """So many of them, evenly spread: folders come in order, and so do classes. All where there are fewer."""
    wanted = min(len(places), wanted)
    return [places[k * len(places) // wanted] for k in range(wanted)]


def grid(
    backbone: Backbone,
    examples: EncodedPictures,
    indices: Sequence[int],
    settings: TrainSettings,
    batch: int,
    hearing: Hearing | None = None,
    taught: Mapping[str, Taught] = NOTHING,
) -> HeldOut:
    """These pictures at fixed times and noise: means of their posteriors, first captions, nothing dropped or mirrored.

    Args:
        batch: rows a forward pass.
        hearing: encodes the captions anew at each measurement, where encoders are trained.
        taught: tell what else is taught of each picture: its class, itself as a reference.
    """
    x, areas = [examples.latents(i)[0] for i in indices], [examples.weight(i) for i in indices]
    captions, sizes = [examples.captions(i)[0] for i in indices], [examples.sizes(i) for i in indices]
    if hearing is None:
        told = zip(captions, indices, sizes, strict=True)
        condition = Condition.cat([backbone.assembled(examples.words(caption, i), [s]) for caption, i, s in told])
        hear = None
    else:
        condition, hear = hearing.base(captions, sizes), partial(_heard, hearing, captions, sizes)
    for part, each in taught.items():
        raw = RAW[part](examples, [(i, False, 0) for i in indices])
        hear = partial(_told, each, raw, backbone, hear or partial(_rows, condition, backbone))
    before = [examples.source(i) for i in indices] if backbone.takes_source else []
    return HeldOut(x, condition, settings.validation_times, batch, settings.validation_pairs, areas, hear, before)


def _heard(hearing: Hearing, captions: Sequence[str], sizes: Sequence[Sizes], rows: Sequence[int]) -> Condition:
    return hearing([captions[i] for i in rows], [sizes[i] for i in rows])


def _rows(condition: Condition, backbone: Backbone, rows: Sequence[int]) -> Condition:
    return condition.rows(torch.tensor(rows)).to(backbone.device, backbone.dtype)


def _told(
    taught: Taught,
    raw: Sequence[Any],
    backbone: Backbone,
    hear: Callable[[Sequence[int]], Condition],
    rows: Sequence[int],
) -> Condition:
    return taught.told(hear(rows), [raw[i] for i in rows]).to(backbone.device, backbone.dtype)
