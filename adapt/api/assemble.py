"""Puts the parts of a run together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data import EncodedPictures, Picture, TensorCache, default_folder
from adapt.data.plan import Plan
from adapt.evaluation.held_out import HeldOut
from adapt.lora import Injection, inject
from adapt.objectives import Anchored, Objective, Plain, Target, TimeSampling
from adapt.progress import Progress
from adapt.sampling.png import save_png
from adapt.training.loop import Judge, Preview, Trainer
from adapt.training.step import Course
from conditioning import Condition


def assemble(
    run: Path,
    backbone: Backbone,
    pictures: Sequence[Picture],
    held_out: Sequence[Picture],
    settings: TrainSettings,
    accelerator: Accelerator,
) -> Trainer:
    """Encodes the pictures (or finds them in the cache), injects LoRA, and returns the trainer at step 0."""
    with accelerator.main_process_first():  # the others then find everything in the cache
        examples, held_out_examples = (encode(backbone, part, settings, accelerator) for part in (pictures, held_out))
    objective = backbone.objective(sampling(settings), settings.min_snr_gamma)
    if settings.gradient_checkpointing:
        denoiser: Any = backbone.denoiser
        denoiser.enable_gradient_checkpointing()
    injection = inject(
        backbone.denoiser, rank=settings.rank, alpha=settings.alpha or settings.rank, dropout=settings.dropout,
        targets=settings.targets or backbone.lora_targets, seed=settings.seed,
    )  # fmt: skip
    backbone.wrapped = accelerator.prepare_model(backbone.denoiser)
    plan = Plan(settings.seed, len(examples), settings.batch_size)
    null = backbone.null(1)
    target = make_target(objective, backbone, injection, settings)
    course = Course(settings, backbone, injection, objective, target, plan, examples, null)
    judge = _judge(course, held_out_examples) if held_out else None
    preview = _preview(run, backbone, settings, pictures) if accelerator.is_main_process else None
    return Trainer(course, accelerator, run, judge, preview)


def sampling(settings: TrainSettings) -> TimeSampling:
    return TimeSampling(settings.time_sampling or "uniform", low=settings.time_low, high=settings.time_high)


def encode(
    backbone: Backbone, pictures: Sequence[Picture], settings: TrainSettings, accelerator: Accelerator
) -> EncodedPictures:
    """Latents and text states of these pictures, all in the cache."""
    assert settings.resolution is not None, "settled settings have a resolution"
    size, flips = (settings.resolution, settings.resolution), settings.flip > 0
    cache = TensorCache(default_folder())
    encoded = EncodedPictures(pictures, backbone, size, cache, flips=flips, background=settings.background)
    if accelerator.is_main_process and pictures:
        with Progress("encoding pictures and captions", len(pictures)) as progress:
            encoded.prepare(progress)
    return encoded


def make_target(objective: Objective, backbone: Backbone, injection: Injection, settings: TrainSettings) -> Target:
    """The pictures; above `anchor_above` the base."""
    if settings.anchor_above is None:
        return Plain(objective)

    def teacher(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        with injection.disabled():
            return backbone.predict(x_t, t, condition)

    return Anchored(objective, teacher, settings.anchor_above)


def _judge(course: Course, examples: EncodedPictures) -> Judge:
    """Held-out pictures against the same target as in training, over the same range of times, with even weights."""
    settings, backbone = course.settings, course.backbone
    indices = range(len(examples))
    x = torch.stack([examples.latents(i, False)[0] for i in indices]).to(backbone.device, backbone.dtype)
    rows = [Condition({"text": examples.text(examples.captions(i)[0])}) for i in indices]
    condition = Condition.cat(rows).to(backbone.device, backbone.dtype)
    held_out = HeldOut(x, condition, settings.validation_times, settings.batch_size)
    even = TimeSampling(backbone.time_sampling, low=settings.time_low, high=settings.time_high)
    objective = backbone.objective(even)
    target = make_target(objective, backbone, course.injection, settings)
    with course.injection.disabled():
        base = held_out.losses(backbone, objective, target)
    return Judge(held_out, objective, target, base)


def prompts(settings: TrainSettings, pictures: Sequence[Picture]) -> list[str]:
    """What previews and samples show: the user's prompts, else the first four different captions."""
    captions = dict.fromkeys(caption for p in pictures for caption in p.captions)
    return list(settings.previews) or list(captions)[:4] or [""]


def _preview(run: Path, backbone: Backbone, settings: TrainSettings, pictures: Sequence[Picture]) -> Preview:
    """Draws the prompts with the weights that the backbone holds, always from the same noise."""
    from adapt.api.generate import generate

    texts = prompts(settings, pictures)

    def preview(step: int) -> None:
        denoiser = backbone.denoiser
        denoiser.eval()
        folder = run / "previews" / f"step-{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        drawn = generate(backbone, prompt=texts, guidance_scale=settings.guidance_scale, steps=settings.sampling_steps)
        for number, picture in enumerate(drawn, 1):
            save_png(folder / f"{number:02d}.png", picture)
        denoiser.train()

    return preview
