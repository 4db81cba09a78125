"""Sliders: what their two prompts say to the base, and whether it can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.config import TrainSettings
from adapt.config.slider import opposites
from adapt.errors import SettingsError

if TYPE_CHECKING:  # settings are judged before torch is imported
    from adapt.backbones import Backbone
    from adapt.objectives import Objective, Slid
    from conditioning import Predictor


def require_words(settings: TrainSettings, backbone: Backbone) -> None:
    """Raises `SettingsError` for a slider on a base that is told no words."""
    if settings.slider is not None and backbone.caption_part not in backbone.slots:
        raise SettingsError("a slider lies between two prompts, and the base takes none", given=backbone.reference)
    for prompt in opposites(settings.slider) if settings.slider else ():
        backbone.require_caption(prompt)


def slid(objective: Objective, backbone: Backbone, bare: Predictor, settings: TrainSettings) -> Slid:
    """What is learned, for judged settings.

    Args:
        bare: the base's own predictions, without what is trained.
    """
    from adapt.objectives import Slid

    assert settings.slider is not None, "judged"
    more, less = (backbone.condition([text]).to(backbone.device, backbone.dtype) for text in opposites(settings.slider))
    return Slid(objective, bare, more, less, settings.slider_strength)


def intent(settings: TrainSettings) -> str:
    """What a run will learn, for the line that says so; "" where it learns no slider."""
    if settings.slider is None:
        return ""
    more, less = opposites(settings.slider)
    return f"learns to go from “{less}” to “{more}” at strength {settings.slider_strength:g}, not the pictures; "
