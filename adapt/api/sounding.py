"""Sounds that are not as the base's are: taught only where it was asked for that they are converted."""

from __future__ import annotations

from adapt.config import TrainSettings
from adapt.data.judge import Judgement
from adapt.errors import DataError
from adapt.medium import Medium

CONVERTED = ("rate", "channels")
"""Kinds of findings that say what is converted."""


def require_alike(judgement: Judgement, settings: TrainSettings, medium: Medium) -> None:
    """Raises `DataError` for sounds of another rate or with other channels than the base's, unless `convert_sounds` is on."""
    if medium.kind != "sound" or settings.convert_sounds:
        return
    other = [finding for finding in judgement.warnings if finding.kind in CONVERTED]
    if other:
        named = len({finding.name for finding in other})
        raise DataError(
            f"{named} of {len(judgement.pictures)} sounds are not as the base's",
            given=f"{other[0].name} {other[0].message.partition(':')[0]}",
            allowed=f"{medium.rate} samples a second, {medium.channels} channels",
            next="convert_sounds=true brings them to it",
        )
