"""What a run will cost, measured on the machine at hand: a few real steps on the real base, nothing kept or written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from adapt.api.gather import Pictures
from adapt.api.train import make_accelerator, settle
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data.plan import normal
from adapt.lora import inject


@dataclass(frozen=True)
class Forecast:
    """Attributes:
    pictures, held_out: how many.
    epochs: times that each picture is seen.
    encode_seconds: for all pictures; less where the cache has them.
    step_seconds: an optimizer step.
    measure_seconds: one measurement of the held-out loss.
    preview_seconds: one round of previews.
    total_seconds: the whole run, without loading.
    memory_gib: highest memory of the process (GPU memory on a GPU).
    trainable: LoRA parameters.
    """

    pictures: int
    held_out: int
    epochs: float
    encode_seconds: float
    step_seconds: float
    measure_seconds: float
    preview_seconds: float
    total_seconds: float
    memory_gib: float
    trainable: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(base: str, pictures: Pictures, settings: TrainSettings) -> tuple[TrainSettings, Forecast]:
    """Loads the base, takes three steps on noise and throws them away. Returns the settled settings too."""
    accelerator = make_accelerator(settings)
    backbone = Backbone.load(base, device=accelerator.device)
    settings = settle(settings, backbone)
    assert settings.resolution is not None and settings.sampling_steps is not None, "settled"
    side, rows = settings.resolution, settings.batch_size // accelerator.num_processes // settings.accumulation
    encode = _timed(lambda: backbone.encode_media(torch.zeros(1, 3, side, side)))
    injection = inject(
        backbone.denoiser, rank=settings.rank, alpha=settings.alpha or settings.rank, dropout=0.0,
        targets=settings.targets or backbone.lora_targets, seed=0,
    )  # fmt: skip
    forward = _forward(backbone, rows, side)
    micro = _timed(lambda: torch.autograd.backward(forward().square().mean()))
    with torch.no_grad():
        glance = _timed(forward)
    step = micro * settings.accumulation * (1 + _taught(settings) * glance / micro)
    count, held_out = len(pictures.train), len(pictures.held_out)
    measure = held_out * settings.validation_times * glance / rows
    preview = (len(settings.previews) or 4) * settings.sampling_steps * 2 * glance / rows
    encoded = (count * (1 + (settings.flip > 0)) + held_out) * encode
    total = encoded + settings.steps * step + _rounds(settings, settings.validate_every, bool(held_out)) * measure
    total += _rounds(settings, settings.preview_every, True) * preview
    return settings, Forecast(
        pictures=count, held_out=held_out, epochs=settings.steps * settings.batch_size / count, encode_seconds=encoded,
        step_seconds=step, measure_seconds=measure, preview_seconds=preview, total_seconds=total,
        memory_gib=_memory(accelerator.device), trainable=sum(p.numel() for p in injection.parameters.values()),
    )  # fmt: skip


def _taught(settings: TrainSettings) -> float:
    """Whether a step also asks the base, as a number of forward passes."""
    return 0.0 if settings.anchor_above is None else 1.0


def _rounds(settings: TrainSettings, every: int, wanted: bool) -> int:
    return (settings.steps // every + 1) * wanted


def _forward(backbone: Backbone, rows: int, side: int) -> Callable[[], torch.Tensor]:
    shape = (rows, *backbone.latent_shape(side, side))
    x = normal(0, "forecast", 0, 0, shape).to(backbone.device, backbone.dtype)
    t = backbone.objective().times(torch.full((rows,), 0.5)).to(x.device)
    condition = backbone.null(1).expand(rows)
    return lambda: backbone.predict(x, t, condition)


def _timed(work: Callable[[], object], repeats: int = 2) -> float:
    """Seconds of one call, after one that warms up."""
    work()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**30
