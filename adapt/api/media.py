"""What a run's settings make of a base's medium. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapt.config import TrainSettings
from adapt.errors import SettingsError
from adapt.medium import Medium

NOT_OF_SOUNDS: dict[str, Any] = {
    "resolution": None,
    "resolutions": (),
    "buckets": False,
    "flip": 0.0,
    "colour": 0.0,
    "masks": "none",
}
NOT_OF_CLIPS: dict[str, Any] = {"masks": "none"}
NOT_OF_PICTURES: dict[str, Any] = {"seconds": None, "frames": None, "fps": None}


def with_settings(own: Medium, settings: TrainSettings) -> Medium:
    """The base's medium at the sizes, length and frames that the settings ask for.

    Raises:
        SettingsError: a setting means nothing for this medium, or frames that the base cannot take.
    """
    _refuse_foreign(own, settings)
    if own.kind == "sound":
        return own.lasting(settings.seconds)
    side = max(settings.resolutions, default=settings.resolution or own.side)
    return replace(own, side=side).at(settings.frames, settings.fps)


def _refuse_foreign(own: Medium, settings: TrainSettings) -> None:
    foreign: dict[str, Any] = {
        "picture": NOT_OF_PICTURES,
        "sound": {**NOT_OF_SOUNDS, "frames": None, "fps": None},
        "video": {**NOT_OF_CLIPS, "seconds": None},
    }[own.kind]
    if settings.resolution == own.lasting(settings.seconds).side:  # settled, in samples: of a run that goes on
        foreign = {name: value for name, value in foreign.items() if name != "resolution"}
    given = [f"{name}={getattr(settings, name)}" for name, value in foreign.items() if getattr(settings, name) != value]
    if given:
        raise SettingsError(
            f"these settings mean nothing for {own.noun}", given=", ".join(given), next="leave them out"
        )
