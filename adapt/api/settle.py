"""The settings of a run with every "the base's own" filled in, judged against the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.api.assistant import require_assistant
from adapt.api.classes import require_slot
from adapt.api.controls import require_place, settled_control
from adapt.api.distillation import settled_distillation
from adapt.api.experts import settled_experts
from adapt.api.image_prompts import require_pictures
from adapt.api.media import with_settings
from adapt.api.network import settled_network
from adapt.api.pairs import settled_sources
from adapt.api.sizes import shelves
from adapt.api.slider import require_words
from adapt.config import TrainSettings
from adapt.errors import BackboneError, SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone


def settle(settings: TrainSettings, backbone: Backbone) -> TrainSettings:
    """The settings with every "the base's own" filled in, checked against the base.

    Raises:
        SettingsError: a resolution that the base cannot take, targets or patterns that it does not have, an `init_from` that
            does not fit, or times, weights or noise that make no sense with what it predicts.
        AdapterError: an `init_from` that cannot be read, or was made for another base.
    """
    from adapt.api.objective import make_objective

    _require_job(settings, backbone)
    require_trainable(backbone, settings)
    settings = settings.model_copy(update=settled_experts(settings, backbone))
    medium = with_settings(backbone.medium, settings)
    backbone.frames, backbone.fps = medium.frames, medium.fps
    require_slot(backbone, settings)
    require_pictures(backbone, settings)
    require_place(backbone, settings)
    network, distilled = settled_network(settings, backbone), settled_distillation(settings, backbone)
    require_words(settings, backbone)
    make_objective(backbone, settings)
    resolution = medium.side
    backbone.require_size(resolution, resolution)
    shelves(settings.model_copy(update={"resolution": resolution}), backbone.multiple, backbone.medium.kind)
    return settings.model_copy(
        update={
            "resolution": resolution,
            **network,
            "time_sampling": settings.time_sampling or backbone.time_sampling,
            "guidance_scale": settings.guidance_scale or backbone.guidance_scale,
            "sampling_steps": settings.sampling_steps or _drawn_in(backbone),
            **distilled,
            **settled_control(settings),
            **settled_sources(settings, backbone),
        }
    )


def _drawn_in(backbone: Backbone) -> int:
    """Steps: of a distilled variant its own few."""
    return (backbone.untrainable and backbone.untrainable.steps) or backbone.sampling_steps


def _require_job(settings: TrainSettings, backbone: Backbone) -> None:
    """Raises `SettingsError` for a preset of a job that the base cannot do."""
    if settings.preset == "edit" and not backbone.edits:
        raise SettingsError(
            "preset=edit is for bases that take a picture beside the words",
            given=f"{backbone.pipeline_class}, {backbone.task}",
            next="another base, or another preset",
        )


def require_trainable(backbone: Backbone, settings: TrainSettings) -> None:
    """Tells a distilled base the guidance that it is trained with.

    Raises:
        BackboneError: it can be drawn with, but not be trained.
        SettingsError: a guidance that it does not take.
    """
    refusal = backbone.untrainable
    if refusal and not (refusal.assisted and settings.assistant):
        raise BackboneError(f"this base cannot be trained: {refusal.reason}", given=backbone.reference)
    require_assistant(settings, backbone)
    if settings.embedded_guidance is None:
        return
    if backbone.embedded_guidance is None:
        raise SettingsError("the base has no embedded guidance", given=settings.embedded_guidance, next="leave it out")
    backbone.trained_guidance = settings.embedded_guidance
