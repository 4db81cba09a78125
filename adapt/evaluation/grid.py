"""The settings that a sweep draws with: guidance scales × steps × scales of the adapter. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Any, NamedTuple

from adapt.errors import SettingsError

MOST = 400
"""Settings of one grid: more is a slip of the keyboard, and no sheet that anybody looks at."""


Passes = tuple[int, int]
"""Evaluations of the network in one step: with guidance of the words off, and on."""
USUAL: Passes = (1, 2)


class Setting(NamedTuple):
    """What one cell is drawn with.

    Attributes:
        scale: of the adapter: 1 as trained, 0 nothing.
        guidance_scale: from 1, which is off.
        steps: inference steps.
    """

    scale: float
    guidance_scale: float
    steps: int

    @property
    def evaluations(self) -> int:
        """Of the network, for one picture: what it costs, on every machine. Guidance doubles them."""
        return self.work()

    def work(self, passes: Passes = USUAL) -> int:
        """The same, where a step takes so many `passes`."""
        return self.steps * passes[self.guidance_scale != 1]

    def __str__(self) -> str:
        return f"adapter scale {self.scale:g}, guidance scale {self.guidance_scale:g}, {self.steps} steps"


@dataclass(frozen=True)
class Grid:
    """Every combination. Axes rise and hold nothing twice.

    Attributes:
        passes: what a step costs; more where parts of the condition guide by themselves.

    Raises:
        SettingsError: an axis is empty, holds something out of range, or there are too many combinations.
    """

    scales: tuple[float, ...]
    guidance_scales: tuple[float, ...]
    steps: tuple[int, ...]
    passes: Passes = USUAL

    def __post_init__(self) -> None:
        for name, low in (("scales", None), ("guidance_scales", 1), ("steps", 1)):
            _judge(name, getattr(self, name), low)
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if len(self) > MOST:
            raise SettingsError("the sweep has too many settings", given=" × ".join(map(str, self.shape)), allowed=MOST)

    def __len__(self) -> int:
        scales, guidance, steps = self.shape
        return scales * guidance * steps

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many (scales, guidance scales, steps)."""
        return len(self.scales), len(self.guidance_scales), len(self.steps)

    @property
    def settings(self) -> list[Setting]:
        """In the order of `shape`: the last axis runs fastest."""
        return [Setting(*one) for one in product(self.scales, self.guidance_scales, self.steps)]


def _judge(name: str, values: Sequence[Any], low: float | None) -> None:
    """Raises `SettingsError` unless an axis holds numbers in range; `steps` whole ones."""
    noun, kind = name.replace("_", " "), "whole numbers" if name == "steps" else "numbers"
    allowed = f"{kind} separated by commas" + ("" if low is None else f", each from {low}")
    right = all(isfinite(v) and (low is None or v >= low) and (name != "steps" or v == int(v)) for v in values)
    if not values or not right:
        given = ",".join(f"{v:g}" for v in values) or "nothing"
        raise SettingsError(f"the sweep's {noun} are out of range", given=given, allowed=allowed)


def around(present: Setting, most_steps: int = 1000) -> Grid:
    """The grid that is drawn when nothing is asked for: the present setting, less and more.

    Guidance counts from 1, where it is off; it stays off where it is off at present.
    """
    push, steps = present.guidance_scale - 1, present.steps
    return Grid(
        scales=tuple(round(factor * present.scale, 2) for factor in (0.7, 1, 1.3)),
        guidance_scales=tuple(round(1 + factor * push, 2) for factor in (0.5, 1, 1.5)),
        steps=tuple(min(max(1, round(factor * steps)), most_steps) for factor in (0.5, 1, 1.5)),
    )
