"""`memory=fit`: the fastest set of measures with which a run fits, tried on the base itself before step 1."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from adapt.api.assemble import hearing_of
from adapt.api.controls import standing_beside
from adapt.api.forecast import applying, asking, forward_of, preview_of, previewed, still
from adapt.api.gather import Pictures
from adapt.api.kernels import attend
from adapt.api.machine import Resting, held, load_base
from adapt.api.memory import free, peak_of
from adapt.api.network import put_in
from adapt.api.objective import make_objective
from adapt.api.offload import keeping_of
from adapt.api.settle import settle
from adapt.api.sizes import in_use, shelves
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.config.network import SPLITS
from adapt.errors import SettingsError
from adapt.loading import in_few_bits
from adapt.lora import Network
from adapt.progress import say
from adapt.training.update import Update

MEASURES = (
    "accumulation",
    "gradient_checkpointing",
    "offload_activations",
    "base_precision",
    "quantize",
    "offload_weights",
)
NEW: dict[str, Any] = {"init": "default", "init_from": None}
"""A start takes no memory of its own that stays."""


@dataclass(frozen=True)
class Trial:
    """Attributes:
    changes: settings other than those that were given.
    gib: the most memory that a step held.
    seconds: that it took.
    """

    changes: Mapping[str, Any]
    gib: float
    seconds: float

    def __str__(self) -> str:
        words = ", ".join(f"{name}={str(value).lower()}" for name, value in self.changes.items())
        return words or "no measure"


def fitted(base: str, settings: TrainSettings, pictures: Pictures, accelerator: Accelerator) -> TrainSettings:
    """The settings with what the base is held in and, under `memory=fit`, with the measures that make the run fit.

    First come measures that change nothing of what is learned: smaller pieces of a batch, activations that are computed again;
    of those that fit, the fastest is taken; on a GPU, what is kept for the way back may wait in the machine's memory. Only where
    none does is the base held in bf16, then in four bits (bitsandbytes), and then half of its layers and all wait there too.

    Raises:
        SettingsError: nothing makes it fit.
    """
    settings = held(base, settings, accelerator.device.type)
    if settings.memory != "fit":
        return settings
    limit = settings.memory_limit or free(accelerator.device)
    tried: list[Trial] = []
    ways = [{}] if in_few_bits(base) else _precisions(settings, accelerator)
    for how in ways:
        found = _trials(base, settings.model_copy(update=how), how, pictures, accelerator, limit)
        tried += found
        if fits := [trial for trial in found if trial.gib <= limit]:
            best = min(fits, key=lambda trial: trial.seconds)
            if accelerator.is_main_process:
                say(_told(best, tried[0], limit))
            return settings.model_copy(update={**best.changes, "memory": "as_set"})
    least = min(trial.gib for trial in tried)
    raise SettingsError(
        "memory=fit: no set of measures makes this run fit",
        given=f"{least:.3g} GiB at least",
        allowed=f"{limit:.3g} GiB",
        next="lower resolution, batch_size or rank, or leave train_text_encoder out",
    )


def _told(best: Trial, first: Trial, limit: float) -> str:
    as_set = "" if best is first else f"; as set it would take {first.gib:.3g}"
    return f"memory=fit: {best.gib:.3g} of {limit:.3g} GiB with {best}{as_set}"


def _precisions(settings: TrainSettings, accelerator: Accelerator) -> Iterator[dict[str, Any]]:
    """What the base may be held in, as it was set first."""
    yield {}
    if settings.init in SPLITS or settings.quantize != "none" or settings.precision == "fp16":
        return
    half = {"base_precision": "bf16"} if settings.base_precision == "fp32" else {}
    if half:
        yield half
    gpu = accelerator.device.type == "cuda"
    bits = settings.kind == "lora" and not settings.compile and settings.control_as != "controlnet"
    if gpu and bits and find_spec("bitsandbytes"):
        yield {**half, "quantize": "nf4-bnb"}
    if gpu and not settings.offload_weights and _may_wait(settings, accelerator.num_processes):
        for share in (0.5, 1.0):
            yield {**half, "offload_weights": share}


def _may_wait(settings: TrainSettings, processes: int) -> bool:
    """Whether weights may be elsewhere than the network."""
    try:
        TrainSettings.model_validate({**settings.model_dump(), "offload_weights": 1.0, "memory": "as_set", "memory_limit": None,
                                      "epochs": None})  # fmt: skip
    except ValueError:
        return False
    return processes == 1


def _trials(
    base: str,
    settings: TrainSettings,
    held: Mapping[str, Any],
    pictures: Pictures,
    accelerator: Accelerator,
    limit: float,
) -> list[Trial]:
    """In every way that there is for activations: as many rows at once as are wanted, then half of them …, until it fits."""
    backbone = load_base(base, settings, accelerator)
    settings = settle(settings, backbone)
    injection = put_in(backbone, still(settings).model_copy(update=NEW))
    for network in backbone.networks:
        attend(network, settings)
    resting = Resting(backbone)
    if settings.unload:
        resting.rest()
    found = []
    for way in _ways(settings, accelerator.device):
        as_this = settings.model_copy(update=way)
        if as_this.gradient_checkpointing:
            for network in (*backbone.networks, *standing_beside(backbone)):
                network.enable_gradient_checkpointing()
        for accumulation in _pieces(settings, accelerator.num_processes):
            own = {"accumulation": accumulation} if accumulation != settings.accumulation else {}
            one = _tried(backbone, injection, as_this, accumulation, pictures, accelerator)
            found.append(Trial({**held, **own, **way}, *_worst(accelerator, *one)))
            if found[-1].gib <= limit:
                break
    return found


def _ways(settings: TrainSettings, device: torch.device) -> Iterator[dict[str, bool]]:
    """What may become of activations: as it is set; computed again; those that are left waiting elsewhere, where there is an
    elsewhere."""
    yield {}
    again = {} if settings.gradient_checkpointing else {"gradient_checkpointing": True}
    if again:
        yield again
    if device.type != "cpu" and not settings.offload_activations and not settings.compile:
        yield {**again, "offload_activations": True}


def _pieces(settings: TrainSettings, processes: int) -> Iterator[int]:
    """Numbers of pieces that a process can cut its share into, from the one that is set: each with half the rows or fewer."""
    share = settings.batch_size // processes
    rows = share // settings.accumulation
    yield settings.accumulation
    for fewer in range(rows - 1, 0, -1):
        if share % fewer == 0 and 2 * fewer <= rows:
            rows = fewer
            yield share // fewer


def _tried(
    backbone: Backbone,
    injection: Network,
    settings: TrainSettings,
    accumulation: int,
    pictures: Pictures,
    accelerator: Accelerator,
) -> tuple[float, float]:
    """The most GiB of a step on noise, at the largest size, and of previews; seconds of the step."""
    shelf = shelves(settings, backbone.multiple, backbone.medium.kind)
    largest = max(
        in_use(pictures.train, shelf),
        key=lambda size: size[0] * size[1],
    )
    rows = settings.batch_size // accelerator.num_processes // accumulation
    forward = asking(
        forward_of(
            backbone,
            rows,
            largest,
            accelerator,
            hearing_of(backbone, injection, settings),
            keeping_of(settings, backbone),
            make_objective(backbone, settings),
        ),
        settings,
    )
    update = Update(settings, injection, accelerator.device)
    settings = settings.model_copy(update={"accumulation": accumulation})
    preview = preview_of(backbone, settings, previewed(settings, pictures), accelerator)
    seconds = 0.0

    def step() -> None:
        nonlocal seconds
        for _ in range(2):  # the second has the optimizer's state in memory
            started = time.perf_counter()
            torch.autograd.backward(update.scaled(forward().float().square().mean()))
            micro = time.perf_counter() - started
            applying(update)
            seconds = micro * accumulation + (time.perf_counter() - started - micro)

    def both() -> None:
        step()
        preview()

    for network in backbone.networks:
        network.train()
    beside = standing_beside(backbone)
    beside += [injection.assistant.branches] if injection.assistant is not None else []
    gib = peak_of(both, [*_there(backbone, settings, accelerator), *beside], accelerator.device)
    for parameter in injection.parameters.values():
        parameter.grad = None
    return gib, seconds


def _there(backbone: Backbone, settings: TrainSettings, accelerator: Accelerator) -> list[nn.Module]:
    """Modules that are in the device's memory while steps are taken."""
    if settings.unload and accelerator.device.type != "cpu":
        resting = Resting(backbone).modules()
        return [module for module in backbone.modules.values() if module not in resting]
    return list(backbone.modules.values())


def _worst(accelerator: Accelerator, gib: float, seconds: float) -> tuple[float, float]:
    """Of all processes, so that they agree."""
    if accelerator.num_processes == 1:
        return gib, seconds
    mine = torch.tensor([min(gib, 1e9), seconds], device=accelerator.device)
    most = accelerator.gather(mine).reshape(-1, 2).amax(0).tolist()
    return (math.inf if most[0] >= 1e9 else most[0]), most[1]
