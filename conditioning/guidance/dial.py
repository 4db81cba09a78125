"""A scale over the loop: where it works, and how it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi

from conditioning.guidance.base import Moment

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 2 * share,
    "cosine": lambda share: 1 - cos(pi * share),
}
"""Share of the loop that is done (0 … 1) → factor of scale - 1. Each has mean 1, so that a scale means the same push in
total; `linear` and `cosine` rise (Wang et al. 2024, arXiv 2404.13040, section 4)."""


@dataclass(frozen=True)
class Dial:
    """How strongly a contrast works, over the loop.

    Attributes:
        scale: 1 is neutral, above 1 pushes further, 0 is the weaker prediction itself.
        start, stop: share of the loop, 0 … 1, in which it works (Kynkäänniemi et al. 2024, arXiv 2404.07724); outside it
            is neutral.
        schedule: a name of `SCHEDULES`.

    Raises:
        ValueError: another schedule.
    """

    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, not {self.schedule!r}")

    def at(self, moment: Moment) -> float:
        """The scale at this moment; exactly 1 where it is neutral."""
        if self.scale == 1 or not self.start <= moment.index / moment.steps < self.stop:
            return 1.0
        if self.schedule == "constant":
            return self.scale
        share = (moment.index + 0.5) / moment.steps
        return 1 + (self.scale - 1) * SCHEDULES[self.schedule](share)
