"""What a sweep draws, judged before anything is drawn, and the drawing of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Image

from adapt.adapter import Adapter
from adapt.api.generate import applied
from adapt.api.reference import NONE, Reference
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.evaluation.grid import Grid, Setting, around
from adapt.prompts import PLAIN
from adapt.sampling.draw import draw
from adapt.sampling.request import Drawing, Request, settle

ENOUGH = 16
"""Pictures of a setting when nothing is said: as many of each prompt as make at least so many."""

Report = Callable[[int, int, float | None], None]
"""`report(done, total, seconds left)`, counted in pictures."""


def unheard(done: int, total: int, left: float | None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Axes:
    """Values of each axis; None: around what is recommended at present."""

    scales: Sequence[float] | None = None
    guidance_scales: Sequence[float] | None = None
    steps: Sequence[int] | None = None

    def grid(self, present: Setting, most_steps: int) -> Grid:
        """Every combination."""
        usual = around(present, most_steps)
        return Grid(
            usual.scales if self.scales is None else tuple(self.scales),
            usual.guidance_scales if self.guidance_scales is None else tuple(self.guidance_scales),
            usual.steps if self.steps is None else tuple(self.steps),
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Attributes:
    prompts: different ones.
    count: pictures of each in every setting.
    seed: of the first picture of each prompt.
    present: the setting that is recommended now.
    grid: what is drawn.
    drawings: of the base (the present setting without the adapter), then of every setting of the grid.
    """

    prompts: tuple[str, ...]
    count: int
    seed: int
    present: Setting
    grid: Grid
    drawings: dict[Setting, list[Drawing]]

    @property
    def base(self) -> Setting:
        return self.present._replace(scale=0.0)

    @property
    def order(self) -> list[Setting]:
        """The base, then the grid."""
        return [self.base, *self.grid.settings]

    @property
    def own(self) -> list[int]:
        """Number of each picture's prompt."""
        return [number % len(self.prompts) for number in range(self.count * len(self.prompts))]


def planned(
    backbone: Backbone, adapter: Adapter, prompts: tuple[str, ...], count: int | None, seed: int, axes: Axes
) -> Plan:
    """Every drawing, settled and judged.

    Raises:
        SettingsError: a setting out of range, or a base that makes no pictures.
    """
    _require_pictures(backbone)
    count = -(-ENOUGH // len(prompts)) if count is None else count
    asked = asked_of(prompts, count, seed)
    present = present_of(backbone, adapter)
    grid = axes.grid(present, int(backbone.scheduler_config.get("num_train_timesteps", 1000)))
    plan = Plan(prompts, count, seed, present, grid, {})
    plan.drawings.update({one: _drawings(backbone, adapter, one, asked) for one in plan.order})
    return plan


def prompts_of(given: str | Sequence[str], adapter: Adapter, reference: Reference = NONE) -> tuple[str, ...]:
    """What is drawn: what was asked for, else captions of the reference, whose content is then no difference, else the prompts
    of the adapter's samples, else the word that calls it.

    Raises:
        SettingsError: there is none of them.
    """
    asked = (given,) if isinstance(given, str) else tuple(given)
    recorded = [str(sample["prompt"]) for sample in adapter.facts.samples if sample.get("prompt")]
    found = tuple(dict.fromkeys(asked or reference.prompts(ENOUGH, adapter.triggers) or recorded or adapter.triggers))
    if not found:
        raise SettingsError("there is no prompt, and the adapter records none", next='--prompt "a red bicycle"')
    return found


def asked_of(prompts: Sequence[str], count: int, seed: int) -> list[tuple[str, int]]:
    """Prompts and seeds: each prompt once, then each once more …"""
    if count < 1:
        raise SettingsError("count is out of range", given=count, allowed="a whole number from 1")
    return [(prompt, seed + number) for number in range(count) for prompt in prompts]


def present_of(backbone: Backbone, adapter: Adapter) -> Setting:
    """What `generate` draws with when nothing is said."""
    advice: dict[str, Any] = {
        "scale": 1.0,
        "guidance_scale": backbone.guidance_scale,
        "steps": backbone.sampling_steps,
        **adapter.recommended,
    }
    return Setting(float(advice["scale"]), float(advice["guidance_scale"]), int(advice["steps"]))


def _require_pictures(backbone: Backbone) -> None:
    if backbone.medium.kind != "picture":
        raise SettingsError("a sweep compares pictures", given=f"{backbone.reference} makes {backbone.medium.noun}",
                            next="adapt generate draws one setting at a time")  # fmt: skip
    if backbone.takes_source:
        raise SettingsError("a sweep draws from words alone, and the base is given a picture too", given=backbone.reference,
                            next="adapt generate --image draws one setting at a time")  # fmt: skip


def _drawings(
    backbone: Backbone, adapter: Adapter, setting: Setting, asked: Sequence[tuple[str, int]]
) -> list[Drawing]:
    """What is drawn at a setting, judged before anything is drawn."""
    for prompt, _ in asked:
        backbone.require_prompt(prompt)
    common = Request(prompt="", prompt_syntax=PLAIN, guidance_scale=setting.guidance_scale, steps=setting.steps)
    requests = [replace(common, prompt=prompt, seed=seed) for prompt, seed in asked]
    return [settle(request, backbone, adapter.recommended) for request in requests]


class Drawer:
    """Draws setting by setting and takes the time.

    One batch is drawn before: what the first pictures of a process cost is no property of a setting.
    """

    def __init__(
        self, backbone: Backbone, adapter: Adapter, batch_size: int, progress: Report,
        drawings: dict[Setting, list[Drawing]],
    ) -> None:  # fmt: skip
        self.backbone, self.adapter, self.batch_size, self.progress = backbone, adapter, batch_size, progress
        self.drawings, self.done, self.started = drawings, 0, time.monotonic()
        with applied(backbone, [(adapter, 1.0)]):  # one that does not fit is refused now
            draw(backbone, next(iter(drawings.values()))[:batch_size], batch_size=batch_size)

    def __call__(self, setting: Setting) -> tuple[list[Image], float]:
        """The pictures of a setting, and seconds a picture."""
        self.tell()
        drawings = self.drawings[setting]
        with applied(self.backbone, [(self.adapter, setting.scale)] if setting.scale else []):
            started = time.perf_counter()
            pictures = draw(self.backbone, drawings, batch_size=self.batch_size)
            seconds = time.perf_counter() - started
        self.done += 1
        return [picture for picture in pictures if isinstance(picture, Image)], seconds / len(drawings)

    def tell(self) -> None:
        """How far it is. What is left costs as much for each evaluation as what was done."""
        work, each = [setting.evaluations for setting in self.drawings], len(next(iter(self.drawings.values())))
        spent = time.monotonic() - self.started
        left = spent / sum(work[: self.done]) * sum(work[self.done :]) if self.done else None
        self.progress(self.done * each, len(self.drawings) * each, left)
