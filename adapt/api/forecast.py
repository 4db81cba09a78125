"""What a run will cost, measured on the machine at hand: a few real steps on the real base, nothing kept or written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator

from adapt.api.assemble import hearing_of
from adapt.api.classes import labels_of
from adapt.api.controls import along_nothing
from adapt.api.gather import Pictures
from adapt.api.kernels import require_same_gradients, tune
from adapt.api.machine import Resting, drawing_with, load_base, make_accelerator
from adapt.api.memory import forget_peak, highest
from adapt.api.network import put_in, readers
from adapt.api.objective import make_objective
from adapt.api.offload import keeping_of
from adapt.api.previews import captions_of, requests, together
from adapt.api.settle import settle
from adapt.api.sizes import augmentation, draws, in_use, shelves
from adapt.api.train import counted
from adapt.backbones import Backbone
from adapt.backbones.sources import with_blank
from adapt.config import TrainSettings
from adapt.data.buckets import Size
from adapt.data.plan import normal
from adapt.objectives import Objective
from adapt.sampling.request import Request, size_of
from adapt.training.hearing import Hearing
from adapt.training.schedule import forwards, rounds
from adapt.training.step import at_once
from adapt.training.update import Update


@dataclass(frozen=True)
class Forecast:
    """Attributes:
    pictures, held_out: how many.
    epochs: times that each picture is seen, one of one repeat at one resolution.
    buckets: sizes that pictures are brought to.
    largest: width and height of the largest; `step_seconds` and memory are those of its batches.
    encode_seconds: for all pictures; less where the cache has them.
    step_seconds: an optimizer step.
    measure_seconds: one measurement of the held-out loss.
    preview_seconds: one round of previews.
    total_seconds: the whole run, without loading.
    memory_gib: the most that was held at once from loading on: GPU memory on a GPU, else of the process.
    trainable: parameters of the adapter.
    loads_in: programs that will be able to take it.
    """

    pictures: int
    held_out: int
    epochs: float
    buckets: int
    largest: tuple[int, int]
    encode_seconds: float
    step_seconds: float
    measure_seconds: float
    preview_seconds: float
    total_seconds: float
    memory_gib: float
    trainable: int
    loads_in: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(base: str, pictures: Pictures, settings: TrainSettings) -> tuple[TrainSettings, Forecast]:
    """Loads the base, takes three steps on noise and throws them away. Returns the settled settings too."""
    settings = counted(settings, pictures)
    accelerator = make_accelerator(settings)
    from adapt.api.fit import fitted

    settings = fitted(base, settings, pictures, accelerator)
    forget_peak(accelerator.device)
    backbone = load_base(base, settings.model_copy(update={"shard": False}), accelerator)
    settings = settle(settings, backbone)
    assert settings.resolution is not None and settings.sampling_steps is not None, "settled"
    buckets = in_use(pictures.train, shelves(settings, backbone.multiple, backbone.medium.kind))
    width, height = largest = max(buckets, key=lambda size: size[0] * size[1])
    rows = at_once(settings, accelerator.num_processes)
    encode = _timed(
        lambda: backbone.encode_media(torch.zeros(1, backbone.medium.channels, *backbone.medium.dims(width, height)))
    )
    loads_in = readers(settings, backbone)
    injection = put_in(backbone, still(settings))
    for network in backbone.networks:
        tune(network, settings, accelerator.device)
    require_same_gradients(backbone, injection, settings, accelerator)
    hearing = hearing_of(backbone, injection, settings)
    keeping, objective = keeping_of(settings, backbone), make_objective(backbone, settings)
    forward = forward_of(backbone, rows, largest, accelerator, hearing, keeping, objective)
    update = Update(settings, injection, accelerator.device)
    if settings.unload:
        Resting(backbone).rest()
    predicted = asking(forward, settings)
    micro = _timed(lambda: torch.autograd.backward(update.scaled(predicted().float().square().mean())))
    applied = _timed(lambda: applying(update))
    with torch.no_grad():
        glance = _timed(forward)
    asked = previewed(settings, pictures)
    preview_of(backbone, settings, asked, accelerator)()
    step = micro * settings.accumulation * (1 + _taught(settings) * glance / micro) + applied
    count, held_out = len(pictures.train), len(pictures.held_out)
    measure = forwards(settings, held_out, count) * glance / rows
    preview = len(asked) * settings.sampling_steps * 2 * glance / rows
    versions = augmentation(settings).variants * max(1, len(settings.resolutions)) * (1 + (settings.flip > 0))
    encoded = (count * versions + held_out) * encode
    total = encoded + settings.steps * step + rounds(settings) * measure
    total += (settings.steps // settings.preview_every + 1) * preview
    return settings, Forecast(
        pictures=count, held_out=held_out, epochs=settings.steps * settings.batch_size / draws(pictures.train, settings),
        buckets=len(buckets), largest=largest, encode_seconds=encoded,
        step_seconds=step, measure_seconds=measure, preview_seconds=preview, total_seconds=total,
        memory_gib=highest(accelerator.device), trainable=sum(p.numel() for p in injection.parameters.values()),
        loads_in=loads_in,
    )  # fmt: skip


def still(settings: TrainSettings) -> TrainSettings:
    """Settings of a network that is only measured: there is no Plan here to ask for dropout, and conditioners cost next to
    nothing, but for a ControlNet."""
    none: dict[str, Any] = dict.fromkeys(("dropout", "rank_dropout", "module_dropout"), 0.0)
    none |= {"classes": False, "grow_from": None, "image_prompts": False}
    none |= {} if settings.control_as == "controlnet" else {"control": "none"}
    return settings.model_copy(update=none)


def _taught(settings: TrainSettings) -> float:
    """How often a step also asks the base, at most, as a number of forward passes."""
    asks = (settings.anchor_above is not None, settings.prior_prompt is not None, settings.prior_target == "base")
    return float(sum(asks)) + (2.0 if settings.distill else 0.0) + (3.0 if settings.slider else 0.0)


def asking(forward: Callable[[], torch.Tensor], settings: TrainSettings) -> Callable[[], torch.Tensor]:
    """With the words of a class, each step predicts twice before it goes back."""
    return (lambda: forward() + forward()) if settings.prior_prompt else forward


def applying(update: Update) -> None:
    """A whole step of the optimizer, which keeps its state as in a run, with the gradients that are there."""
    for parameter in update.parameters.values():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    update.apply(0, 0.0)


def forward_of(
    backbone: Backbone,
    rows: int,
    size: Size,
    accelerator: Accelerator,
    hearing: Hearing | None,
    keeping: Callable[[], AbstractContextManager[None]] = nullcontext,
    objective: Objective | None = None,
) -> Callable[[], torch.Tensor]:
    shape = (rows, *backbone.latent_shape(size[1], size[0]))
    x = normal(0, "forecast", 0, 0, shape).to(backbone.device, backbone.dtype)
    t = (objective or backbone.objective()).times(torch.full((rows,), 0.5), shape[2:]).to(x.device)
    nothing = backbone.null(1).expand(rows)

    def forward() -> torch.Tensor:
        with accelerator.autocast(), keeping():
            told = with_blank(backbone, nothing if hearing is None else hearing.learn([""] * rows), *shape[2:])
            return backbone.predict(x, t, along_nothing(backbone, told, *size[::-1]))

    return forward


def previewed(settings: TrainSettings, pictures: Pictures) -> list[Request]:
    """What previews show."""
    return requests(settings, captions_of(pictures.train), labels_of(pictures.train) if settings.classes else ())


def preview_of(
    backbone: Backbone, settings: TrainSettings, asked: Sequence[Request], accelerator: Accelerator
) -> Callable[[], None]:
    """The most that previews hold: one step of as many as are drawn at once, guided, of the largest size, and their decoding."""
    count = min(together(settings, accelerator.num_processes), len(asked))
    sizes = [size_of(request, backbone) for request in asked]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    guided = any((request.guidance_scale or settings.guidance_scale or 1.0) > 1 for request in asked)
    forward = forward_of(backbone, count * (1 + guided), (width, height), accelerator, None)
    resting = drawing_with(backbone, settings)

    @torch.no_grad()
    def work() -> None:
        with resting.awake() if settings.unload else nullcontext():
            prediction = forward()
            backbone.decode(prediction[:count])

    return work


def _timed(work: Callable[[], object], repeats: int = 2) -> float:
    """Seconds of one call, after one that warms up."""
    work()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats
