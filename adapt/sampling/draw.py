"""From decided drawings to pictures, in batches that change no picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from adapt.backbones import Backbone
from adapt.backbones.told import chunks
from adapt.errors import BackboneError, SettingsError
from adapt.sampling import parts, schedulers
from adapt.sampling.axes import Axes
from adapt.sampling.clip import Drawn
from adapt.sampling.guided import guidance_of, perturbed_of
from adapt.sampling.loop import NONE, Progress, denoise, silent
from adapt.sampling.noise import Noise, generator_of
from adapt.sampling.pixels import to_clips, to_hole, to_pictures, to_pixels, to_sounds
from adapt.sampling.request import Drawing
from adapt.sampling.spoken import Spoken, spoken
from adapt.sampling.starts import FromImage, FromNoise, Posterior, Repaint, Start
from adapt.sampling.stepper import Stepper
from conditioning import Condition, Predictor


@dataclass(frozen=True)
class Batch:
    """Drawings that are drawn together.

    Attributes:
        places: of each among all that were asked for.
        drawings: of one kind, whose texts are equally long.
        spoken: what their texts say; None: they are encoded when it is drawn.
    """

    places: Sequence[int]
    drawings: Sequence[Drawing]
    spoken: Spoken | None = None


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
    found = batches(backbone, drawings, batch_size)
    return draw_batches(backbone, found, generators=generators, progress=progress, weaker=weaker)


def draw_batches(
    backbone: Backbone,
    batches: Sequence[Batch],
    *,
    generators: Sequence[torch.Generator] | None = None,
    progress: Progress = silent,
    weaker: Mapping[str, Predictor] = NONE,
) -> Iterator[tuple[int, Drawn]]:
    """As `draw_each`, of batches made beforehand."""
    done, total = 0, sum(drawing.steps for batch in batches for drawing in batch.drawings)
    for batch in batches:
        rows, work = batch.drawings, sum(drawing.steps for drawing in batch.drawings)
        own = [generator_of(d.seed) for d in rows] if generators is None else [generators[i] for i in batch.places]
        report = partial(_report, progress, done, work, total)
        latents = draw_latents(backbone, rows, own, report, weaker, said=batch.spoken)
        yield from zip(batch.places, decoded(backbone, latents, rows[0]), strict=True)
        done += work


def _report(progress: Progress, before: int, work: int, total: int, step: int, steps: int) -> None:
    progress(before + work * step // steps, total)


def batches(backbone: Backbone, drawings: Sequence[Drawing], size: int = 4, *, speak: bool = False) -> list[Batch]:
    """Drawings of one kind, whose texts are equally long, at most `size` together.

    Args:
        speak: whether their texts are encoded now; they wait in the machine's memory.

    Raises:
        SettingsError: `size` is below 1.
    """
    if size < 1:
        raise SettingsError("batch_size is out of range", given=size, allowed="a whole number from 1")
    found = [Batch(places, [drawings[i] for i in places]) for places in _places(backbone, drawings, size)]
    return [replace(b, spoken=spoken(backbone, b.drawings).to("cpu")) for b in found] if speak else found


def _places(backbone: Backbone, drawings: Sequence[Drawing], size: int) -> list[list[int]]:
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
    said: Spoken | None = None,
) -> Tensor:
    """One batch of drawings of one kind → clean latents (B, C, *dims).

    Args:
        said: what their texts say; None: they are encoded here.
    """
    first, device, dtype = drawings[0], backbone.device, backbone.dtype
    stepper = _stepper(backbone, first, generators)
    said = said or spoken(backbone, drawings)
    condition = parts.told(backbone, said.condition, drawings).to(device, dtype)
    negative = parts.nothing(backbone, said.negative, condition).to(device, dtype)
    negative = Condition(negative.parts, condition.facts)  # facts are told to both: only parts are kept away from
    guidance = guidance_of(first, backbone, _further(backbone, first, said, condition))
    others = {**weaker, **perturbed_of(first, backbone)}
    noise = Noise(generators, device, dtype, Axes(backbone.axes))
    start = _start(backbone, first)
    predict = backbone.predict if watch is None else watch(condition)
    return denoise(predict, stepper, guidance, start, noise, condition, negative, progress, others)


def _further(backbone: Backbone, first: Drawing, said: Spoken, drawn: Condition) -> list[tuple[Condition, float]]:
    """The conditions that pull besides the prompt's: one row a drawing."""
    found = []
    for text, (_, weight) in zip(said.further, first.compose, strict=True):
        condition = parts.nothing(backbone, text, drawn).to(backbone.device, backbone.dtype)
        found.append((Condition(condition.parts, drawn.facts), weight))
    return found


def _stepper(backbone: Backbone, drawing: Drawing, generators: Sequence[torch.Generator]) -> Stepper:
    """The scheduler, told what the family tells its own about latents of this size."""
    told = backbone.schedule(drawing.steps, backbone.latent_shape(*drawing.dims)[1:])
    scheduler = schedulers.build(drawing.scheduler, backbone.scheduler_config, drawing.zero_terminal_snr)
    return Stepper(scheduler, drawing.steps, generators, backbone.device, told=told, axes=Axes(backbone.axes))


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
