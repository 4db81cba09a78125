"""Bases with several denoisers, each for its own times: which are taught, and at which times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapt.config import TrainSettings
from adapt.errors import SettingsError

if TYPE_CHECKING:
    from adapt.backbones import Backbone
    from adapt.backbones.held import Expert

INSIDE = 1e-6
"""How far from the boundary times stay where one expert is taught: rounding gives no row to the other."""


def taught(settings: TrainSettings, backbone: Backbone) -> tuple[str, ...]:
    """Components of the denoisers that are taught, the noisiest expert first."""
    if settings.experts == "both":
        return tuple(backbone.denoisers)
    return (backbone.experts[settings.experts].component,)


def settled_experts(settings: TrainSettings, backbone: Backbone) -> dict[str, Any]:
    """`time_low` and `time_high` of the expert that is taught alone; nothing where all are.

    Raises:
        SettingsError: an expert that the base does not have, or one that would have no times.
    """
    experts = backbone.experts
    if settings.experts == "both":
        for name, expert in experts.items():
            _require_times(name, expert, settings, experts)
        return {}
    if settings.experts not in experts:
        raise SettingsError(
            "experts: this base has one network for all times",
            given=settings.experts,
            next="leave it out; time_low and time_high choose times",
        )
    own = experts[settings.experts]
    _require_times(settings.experts, own, settings, experts)
    low = own.low + INSIDE if own.low else 0.0
    high = own.high - INSIDE if own.high < 1 else 1.0
    return {"time_low": max(settings.time_low, low), "time_high": min(settings.time_high, high)}


def _require_times(name: str, expert: Expert, settings: TrainSettings, experts: Mapping[str, Expert]) -> None:
    if settings.time_low >= expert.high or settings.time_high <= expert.low:
        other = next(each for each in experts if each != name)
        raise SettingsError(
            f"the {name} expert predicts no time from time_low to time_high, and would learn nothing",
            given=f"time_low={settings.time_low:g}, time_high={settings.time_high:g}",
            allowed=f"its shares of noise: {expert.low:g} to {expert.high:g}",
            next=f"experts={other}" if settings.experts == "both" else "leave time_low and time_high out",
        )


def intent(settings: TrainSettings, backbone: Backbone) -> str:
    """Which experts are taught, for the line that says what will be done; "" where there are none."""
    if not backbone.experts:
        return ""
    shares = [f"{name} from {e.low:g} to {e.high:g} of noise" for name, e in backbone.experts.items()]
    return f"teaches {'both experts' if settings.experts == 'both' else f'the {settings.experts} expert'} ({'; '.join(shares)}); "
