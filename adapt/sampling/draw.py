"""From decided drawings to pictures, in batches that change no picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.told import chunks, nothing, told
from adapt.errors import BackboneError, SettingsError
from adapt.sampling import parts, schedulers
from adapt.sampling.axes import Axes
from adapt.sampling.clip import Drawn
from adapt.sampling.guided import guidance_of, perturbed_of
from adapt.sampling.loop import NONE, Progress, denoise, silent
from adapt.sampling.noise import Noise, generator_of
from adapt.sampling.pixels import to_clips, to_hole, to_pictures, to_pixels, to_sounds
from adapt.sampling.request import Drawing
from adapt.sampling.starts import FromImage, FromNoise, Posterior, Repaint, Start
from adapt.sampling.stepper import Stepper
from adapt.types import Sizes
from conditioning import Condition, Predictor


def draw(
    backbone: Backbone,
    drawings: Sequence[Drawing],
    *,
    batch_size: int = 4,
    generators: Sequence[torch.Generator] | None = None,
    progress: Progress = silent,
    weaker: Mapping[str, Predictor] = NONE,
) -> list[Drawn]:
    """One RGB picture (clip) a drawing, in the same order. See `draw_each`."""
    drawn = dict(
        draw_each(backbone, drawings, batch_size=batch_size, generators=generators, progress=progress, weaker=weaker)
    )
    return [drawn[place] for place in range(len(drawings))]


def draw_each(
    backbone: Backbone,
    drawings: Sequence[Drawing],
    *,
    batch_size: int = 4,
    generators: Sequence[torch.Generator] | None = None,
    progress: Progress = silent,
    weaker: Mapping[str, Predictor] = NONE,
) -> Iterator[tuple[int, Drawn]]:
    """Places and RGB pictures (clips), as soon as their batch is drawn.

    Drawings of one kind (size, steps, scheduler, guidance, image) share batches; each picture's noise comes from its
    own generator, so that it starts from the same noise alone and in a batch.

    Args:
        batch_size: pictures at once, ≥ 1.
        generators: one a drawing, in place of its seed.
        progress: `progress(done, total)`, counted in steps × pictures, over all batches.
        weaker: predictors that autoguidance and domain guidance compare with, by the names in `guided`.

    Raises:
        SettingsError: see `settle` and `Stepper`.
        DataError: a mask leaves nothing to repaint.
        BackboneError: pixels that are not finite.
    """
    if batch_size < 1:
        raise SettingsError("batch_size is out of range", given=batch_size, allowed="a whole number from 1")
    sources = [generator_of(d.seed) for d in drawings] if generators is None else generators
    done, total = 0, sum(d.steps for d in drawings)
    for places in _batches(backbone, drawings, batch_size):
        rows, work = [drawings[i] for i in places], sum(drawings[i].steps for i in places)
        report = partial(_report, progress, done, work, total)
        latents = draw_latents(backbone, rows, [sources[i] for i in places], report, weaker)
        yield from zip(places, decoded(backbone, latents, rows[0]), strict=True)
        done += work


def _report(progress: Progress, before: int, work: int, total: int, step: int, steps: int) -> None:
    progress(before + work * step // steps, total)


def _batches(backbone: Backbone, drawings: Sequence[Drawing], size: int) -> list[list[int]]:
    """Places of drawings of one kind, whose texts are equally long, at most `size` together."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, drawing in enumerate(drawings):
        lengths = [chunks(backbone, text, drawing.reading) for text in drawing.texts]
        kinds.setdefault((*drawing.kind, *lengths), []).append(place)
    return [places[i : i + size] for places in kinds.values() for i in range(0, len(places), size)]


Watch = Callable[[Condition], Predictor]
"""What is drawn (one row a picture) → what predicts in the backbone's place: it, and something that looks on."""


def draw_latents(
    backbone: Backbone,
    drawings: Sequence[Drawing],
    generators: Sequence[torch.Generator],
    progress: Progress = silent,
    weaker: Mapping[str, Predictor] = NONE,
    watch: Watch | None = None,
) -> Tensor:
    """One batch of drawings of one kind → clean latents (B, C, *dims)."""
    first, device, dtype = drawings[0], backbone.device, backbone.dtype
    stepper = _stepper(backbone, first, generators)
    sizes = [_whole(backbone, first)] * len(drawings)
    condition = parts.spoken(backbone, drawings, [d.prompt for d in drawings], sizes, first.embedded_guidance)
    negative = _negative(backbone, drawings, condition)
    condition = parts.told(backbone, condition, drawings).to(device, dtype)
    negative = parts.nothing(backbone, negative, condition).to(device, dtype)
    negative = Condition(negative.parts, condition.facts)  # facts are told to both: only parts are kept away from
    guidance = guidance_of(first, backbone, _further(backbone, drawings, condition))
    others = {**weaker, **perturbed_of(first, backbone)}
    noise = Noise(generators, device, dtype, Axes(backbone.axes))
    start = _start(backbone, first)
    predict = backbone.predict if watch is None else watch(condition)
    return denoise(predict, stepper, guidance, start, noise, condition, negative, progress, others)


def _further(backbone: Backbone, drawings: Sequence[Drawing], first: Condition) -> list[tuple[Condition, float]]:
    """The conditions that pull besides the prompt's: one row a drawing."""
    found = []
    for number, (_, weight) in enumerate(drawings[0].compose):
        condition = parts.spoken(backbone, drawings, [drawing.compose[number][0] for drawing in drawings])
        condition = parts.nothing(backbone, condition, first)
        condition = Condition(condition.to(backbone.device, backbone.dtype).parts, first.facts)
        found.append((condition, weight))
    return found


def _whole(backbone: Backbone, drawing: Drawing) -> Sizes:
    """What is drawn, for the facts: all of it is there, of a sound as many seconds as are asked for."""
    if drawing.seconds is None:
        return Sizes.whole(drawing.height, drawing.width, drawing.fps)
    return Sizes((1, round(drawing.seconds * backbone.medium.rate)), (0, 0), (1, drawing.width))


def _stepper(backbone: Backbone, drawing: Drawing, generators: Sequence[torch.Generator]) -> Stepper:
    """The scheduler, told what the family tells its own about latents of this size."""
    told = backbone.schedule(drawing.steps, backbone.latent_shape(*drawing.dims)[1:])
    scheduler = schedulers.build(drawing.scheduler, backbone.scheduler_config, drawing.zero_terminal_snr)
    return Stepper(scheduler, drawing.steps, generators, backbone.device, told=told, axes=Axes(backbone.axes))


def _negative(backbone: Backbone, drawings: Sequence[Drawing], condition: Condition) -> Condition:
    """The family's null for "", which is not the encoding of "" everywhere."""
    reading, texts = drawings[0].reading, [d.negative_prompt for d in drawings]
    if backbone.reads_source:
        return parts.spoken(backbone, drawings, texts)
    if not any(texts):
        return nothing(backbone, len(texts), reading, condition)
    beside = [condition.rows(slice(i, i + 1)) for i in range(len(texts))]
    rows = [
        told(backbone, [text], reading) if text else nothing(backbone, 1, reading, own)
        for text, own in zip(texts, beside, strict=True)
    ]
    return Condition.cat(rows)


def _start(backbone: Backbone, drawing: Drawing) -> Start:
    shape = backbone.latent_shape(*drawing.dims)
    if drawing.image is None:
        return FromNoise(shape)
    pixels = to_pixels(drawing.image, drawing.height, drawing.width)
    mean, std = (x.to(backbone.device, backbone.dtype) for x in backbone.encode_media(pixels))
    image = Posterior(mean, std)
    if drawing.mask is None:
        return FromImage(image, drawing.strength)
    hole = to_hole(drawing.mask, drawing.height, drawing.width, shape[1:])
    return Repaint(image, hole.to(mean), drawing.strength)


def decoded(backbone: Backbone, latents: Tensor, drawing: Drawing) -> Sequence[Drawn]:
    """Clean latents (B, C, *dims) of drawings of one kind → what is shown.

    Raises:
        BackboneError: pixels that are not finite.
    """
    pixels = backbone.decode(latents)
    if not bool(torch.isfinite(pixels).all()):
        given = f"{backbone.reference} in {backbone.dtype}"
        raise BackboneError(
            "the picture holds values that are not finite", given=given, next="use float32 or fewer steps"
        )
    if drawing.seconds is not None:
        return to_sounds(pixels, backbone.medium.rate, drawing.seconds)
    return to_pictures(pixels) if drawing.fps is None else to_clips(pixels, drawing.fps)
