"""Puts the parts of a run together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from adapt.api.classes import balanced, labels_of
from adapt.api.judging import make_judge
from adapt.api.kernels import require_same_gradients, tune
from adapt.api.machine import Resting, drawing_with
from adapt.api.media import with_settings
from adapt.api.network import put_in
from adapt.api.objective import make_noise, make_objective, make_prior, make_prior_target, make_target
from adapt.api.offload import keeping_of
from adapt.api.previews import drawer, together
from adapt.api.sizes import augmentation, shelves
from adapt.api.starts import start_from_data
from adapt.backbones import Backbone
from adapt.config import TrainSettings
from adapt.data import EncodedPictures, Picture, TensorCache, default_folder
from adapt.data.beside import Before, Holed
from adapt.data.cache_folder import limit
from adapt.data.holes import Holes
from adapt.data.media import reader_of
from adapt.data.plan import Plan
from adapt.data.tidy import trim
from adapt.lora import Network
from adapt.progress import Progress, say
from adapt.training.hearing import Hearing
from adapt.training.loop import Trainer
from adapt.training.step import Course
from adapt.training.trackers import Trackers


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
        examples = encode(backbone, pictures, settings, accelerator)
        held_out_examples = encode_held_out(backbone, held_out, settings, accelerator)
        make_room(accelerator)
    objective = make_objective(backbone, settings)
    for network in backbone.networks:
        tune(network, settings, accelerator.device)
    labels = labels_of(pictures)
    injection = put_in(backbone, settings, say if accelerator.is_main_process else None, labels)
    require_same_gradients(backbone, injection, settings, accelerator)
    if not settings.grow_from:  # a denoiser without anything that learns needs no wrapper
        wrap(backbone, settings, accelerator)
    plan = make_plan(settings, examples)
    null, hearing = backbone.null(1), hearing_of(backbone, injection, settings)
    target = make_target(objective, backbone, injection, settings)
    course = Course(
        settings, backbone, injection, objective, target, plan, examples, null, make_noise(settings),
        make_prior(objective, backbone, injection, settings, examples.text, hearing),
        make_prior_target(objective, backbone, injection, settings), hearing, keeping_of(settings, backbone),
    )  # fmt: skip
    start_from_data(course)
    judge = make_judge(course, held_out_examples, accelerator.num_processes) if held_out else None
    at_once = together(settings, accelerator.num_processes)
    preview = drawer(run, backbone, settings, pictures, at_once, keep=accelerator.is_main_process)
    if injection.assistant is not None:
        preview = injection.assistant.around(preview)
    if settings.unload:
        preview = drawing_with(backbone, settings).around(preview)
        Resting(backbone).rest()
    trainer = Trainer(
        course, accelerator, run, judge, preview if accelerator.is_main_process or settings.shard else None
    )
    if accelerator.is_main_process and settings.trackers:
        trainer.events.listeners.append(Trackers(settings, run))
    return trainer


def wrap(backbone: Backbone, settings: TrainSettings, accelerator: Accelerator) -> None:
    """Accelerate's precision around each denoiser, and its sharing of gradients around a single one: torch's wrapper waits for
    gradients of all its parameters, and of several denoisers one may have no row in some process."""
    several = len(backbone.networks) > 1 or settings.shard
    place = not settings.offload_weights and not settings.shard
    first, *others = (accelerator.prepare_model(n, place, evaluation_mode=several) for n in backbone.networks)
    assert others == list(backbone.networks[1:]), "only a single denoiser is put into a wrapper"
    backbone.wrapped = first


def encode(
    backbone: Backbone, pictures: Sequence[Picture], settings: TrainSettings, accelerator: Accelerator
) -> EncodedPictures:
    """Latents and text states of these pictures in all their variants, all in the cache."""
    shelf = shelves(settings, backbone.multiple, backbone.medium.kind)
    encoded = EncodedPictures(
        pictures, backbone, shelf, _cache(), augmentation=augmentation(settings),
        flips=settings.flip > 0, reader=reader_of(with_settings(backbone.medium, settings), settings.background),
        outside=settings.mask_outside,
        texts=not settings.hears_itself, control=control_of(settings),
        before=before_of(backbone),
        holed=holed_of(backbone, Holes(settings.inpaint_masks or 1, settings.seed)),
        media_component=joined(backbone.media_components),
        text_component=joined(backbone.text_components or backbone.media_components),
    )  # fmt: skip
    return _prepared(encoded, accelerator)


def encode_held_out(
    backbone: Backbone, pictures: Sequence[Picture], settings: TrainSettings, accelerator: Accelerator
) -> EncodedPictures:
    """The same for pictures that are measured: as they are, at one resolution."""
    shelf = shelves(settings, backbone.multiple, backbone.medium.kind)[:1]
    encoded = EncodedPictures(
        pictures, backbone, shelf, _cache(), outside=settings.mask_outside,
        reader=reader_of(with_settings(backbone.medium, settings), settings.background),
        texts=not settings.hears_itself, control=control_of(settings),
        before=before_of(backbone),
        holed=holed_of(backbone, Holes(1)),
        media_component=joined(backbone.media_components),
        text_component=joined(backbone.text_components or backbone.media_components),
    )  # fmt: skip
    return _prepared(encoded, accelerator)


def before_of(backbone: Backbone) -> Before | None:
    """How what pictures were before is encoded; None: the base does not edit."""
    if not backbone.edits:
        return None
    read = backbone.encode_words if backbone.reads_source else None
    return Before(backbone.source_key, backbone.encode_source, read)


def holed_of(backbone: Backbone, holes: Holes) -> Holed | None:
    """How pictures are encoded with holes; None: the base fills none."""
    return Holed(backbone.source_key, backbone.encode_hole, holes) if backbone.fills else None


def control_of(settings: TrainSettings) -> str | None:
    """What pictures are controlled by."""
    return None if settings.control == "none" else settings.control


def joined(components: Sequence[str]) -> str:
    """Components that cached values depend on, as `Backbone.content_key` takes them."""
    return "+".join(components)


def hearing_of(backbone: Backbone, injection: Network, settings: TrainSettings) -> Hearing | None:
    """How captions are encoded while encoders are trained; None: they are not, and the cache has them."""
    return Hearing(backbone, injection) if settings.hears_itself else None


def make_plan(settings: TrainSettings, examples: EncodedPictures) -> Plan:
    """Batches of one size each; each picture as often as it repeats, at every resolution."""
    repeats = [picture.repeats for picture in examples.pictures]
    if settings.classes and settings.class_balance:
        repeats = balanced(examples.pictures, repeats)
    return Plan(settings.seed, len(examples), settings.batch_size, examples.buckets()[1], repeats)


def _cache() -> TensorCache:
    cache = TensorCache(default_folder())
    cache.use()
    return cache


def _prepared(encoded: EncodedPictures, accelerator: Accelerator) -> EncodedPictures:
    """The main process encodes; the others find everything in the cache."""
    if accelerator.is_main_process and encoded.pictures:
        with Progress("encoding pictures and captions", len(encoded)) as progress:
            encoded.prepare(progress)
    return encoded


def make_room(accelerator: Accelerator) -> None:
    """Brings the cache down to its limit, if that can be done without what running programs use."""
    if accelerator.is_main_process:
        trimmed, most = trim(default_folder(), limit()), limit() / 2**30
        if trimmed.removed:
            say(f"cache: {trimmed.removed} entries of earlier runs removed, {trimmed.left / 2**30:.1f} GiB are left")
        if trimmed.left > most * 2**30:
            say(f"cache: {trimmed.left / 2**30:.1f} GiB are in use and kept, more than ADAPT_CACHE_LIMIT ({most:g})")
