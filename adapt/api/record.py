"""What a run is: said in one line before it begins, and written into `run.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adapt.api.assistant import intent as assisted
from adapt.api.classes import labels_of
from adapt.api.distillation import intent
from adapt.api.experts import intent as experts_taught
from adapt.api.gather import Pictures
from adapt.api.network import digest_of, readers
from adapt.api.sizes import draws, in_use, shelves
from adapt.api.slider import intent as slides
from adapt.config import TrainSettings
from adapt.data.wording import listed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from adapt.backbones import Backbone


def will_do(backbone: Backbone, pictures: Pictures, settings: TrainSettings) -> str:
    """What will be done, in one line."""
    seen = settings.steps * settings.batch_size / draws(pictures.train, settings)
    labels = labels_of(pictures.train) if settings.classes else []
    what = "edit pairs" if backbone.edits else "pictures"
    return (
        f"{backbone.reference}: {len(pictures.train)} {what} at {_sizes(backbone, pictures, settings)}, "
        f"{len(pictures.held_out)} held out; {intent(settings)}{slides(settings)}{experts_taught(settings, backbone)}"
        f"{assisted(settings)}"
        f"{settings.steps} steps of {settings.batch_size}, each picture is seen {seen:.1f} times; {settings.kind} of rank "
        f"{settings.rank}{_beside(settings, labels)}, learning rate {settings.learning_rate:g}, seed {settings.seed}; "
        f"loads in {', '.join(readers(settings, backbone))}"
    )


def _beside(settings: TrainSettings, labels: Sequence[str]) -> str:
    """Which text encoders and classes are taught too, for settled settings."""
    names = settings.train_text_encoder or ()
    encoders = f" (also in {', '.join(names)})" if isinstance(names, tuple) and names else ""
    encoders += " and reference pictures" if settings.image_prompts else ""
    encoders += f" and {settings.control} as control" if settings.control != "none" else ""
    further = ", which stays as it is, and further classes" if settings.grow_from else " and classes"
    return encoders + (f"{further} ({listed(labels)})" if labels else "")


def _sizes(backbone: Backbone, pictures: Pictures, settings: TrainSettings) -> str:
    """`512 px`, or how many buckets at which resolutions."""
    sides = "/".join(map(str, settings.resolutions or [settings.resolution]))
    found = in_use(pictures.train, shelves(settings, backbone.multiple, backbone.medium.kind))
    return f"{sides} px in {len(found)} buckets" if settings.buckets else f"{sides} px"


def describe(
    backbone: Backbone, pictures: Pictures, settings: TrainSettings, accelerator: Accelerator
) -> dict[str, Any]:
    """`run.json`: all that decides the course of a run, and the machine that bit-equality is promised on."""
    import torch

    return {
        "schema": 1,
        "settings": settings.model_dump(mode="json"),
        "data": pictures.digest(settings.classes, settings.image_prompts),
        "base": [backbone.family, backbone.fingerprint(), *(backbone.content_key(c) for c in sorted(backbone.modules))],
        "base_reference": backbone.reference,
        "init_from_digest": digest_of(settings),
        "pictures": [len(pictures.train), len(pictures.held_out)],
        "machine": {
            **versions(),
            "threads": torch.get_num_threads(),
            "processes": accelerator.num_processes,
            "device": accelerator.device.type,
        },
    }


def versions() -> dict[str, str]:
    """Of the libraries that decide what comes out."""
    from importlib.metadata import version

    import adapt

    return {
        "adapt": adapt.__version__,
        **{name: version(name) for name in ("torch", "diffusers", "peft", "transformers")},
    }
