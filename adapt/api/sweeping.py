"""What a sweep draws, judged before anything is drawn, and the drawing of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL.Image import Image

from adapt.adapter import Adapter
from adapt.api.generate import applied, known_of
from adapt.api.subjects import ENOUGH, Subject
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.evaluation.grid import USUAL, Grid, Passes, Setting, around
from adapt.sampling.draw import draw
from adapt.sampling.guided import passes_of
from adapt.sampling.request import Drawing, Request, settle

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

    def grid(self, present: Setting, most_steps: int, passes: Passes = USUAL) -> Grid:
        """Every combination."""
        usual = around(present, most_steps)
        return Grid(
            usual.scales if self.scales is None else tuple(self.scales),
            usual.guidance_scales if self.guidance_scales is None else tuple(self.guidance_scales),
            usual.steps if self.steps is None else tuple(self.steps),
            passes,
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Attributes:
    subjects: different ones.
    count: pictures of each in every setting.
    seed: of the first picture of each subject.
    present: the setting that is recommended now.
    grid: what is drawn.
    drawings: of the base (the present setting without the adapter), then of every setting of the grid.
    """

    subjects: tuple[Subject, ...]
    count: int
    seed: int
    present: Setting
    grid: Grid
    drawings: dict[Setting, list[Drawing]]

    @property
    def prompts(self) -> tuple[str, ...]:
        """What is shown, as a reader is told it."""
        return tuple(map(str, self.subjects))

    @property
    def words(self) -> tuple[str, ...]:
        """The different words by which the base knows the subjects."""
        return tuple(dict.fromkeys(subject.words for subject in self.subjects))

    @property
    def base(self) -> Setting:
        return self.present._replace(scale=0.0)

    @property
    def order(self) -> list[Setting]:
        """The base, then the grid."""
        return [self.base, *self.grid.settings]

    @property
    def own(self) -> list[int]:
        """Number of each picture's words."""
        numbers = {words: number for number, words in enumerate(self.words)}
        return [numbers[subject.words] for subject in self.subjects] * self.count

    def passes(self, setting: Setting) -> Passes:
        """What a step costs: the base alone has no parts that guide by themselves."""
        return self.grid.passes if setting.scale else USUAL


def planned(
    backbone: Backbone, adapter: Adapter, subjects: tuple[Subject, ...], common: Request, count: int | None, axes: Axes
) -> Plan:
    """Every drawing, settled and judged.

    Args:
        common: what all pictures have in common; its seed is that of the first picture of each subject.

    Raises:
        SettingsError: a setting out of range, or a base that makes no pictures.
    """
    _require_pictures(backbone)
    count = -(-ENOUGH // len(subjects)) if count is None else count
    asked = asked_of(subjects, count, common.seed)
    present = present_of(backbone, adapter)
    known = known_of([(adapter, 1.0)])
    first = settle(_request(common, present, *asked[0]), backbone, adapter.recommended, known)
    passes = passes_of(first, backbone, adapter.conditioners)
    grid = axes.grid(present, int(backbone.scheduler_config.get("num_train_timesteps", 1000)), passes)
    plan = Plan(subjects, count, common.seed, present, grid, {})
    plan.drawings.update({one: _drawings(backbone, adapter, one, asked, common) for one in plan.order})
    return plan


def asked_of(subjects: Sequence[Subject], count: int, seed: int) -> list[tuple[Subject, int]]:
    """Subjects and seeds: each subject once, then each once more …"""
    if count < 1:
        raise SettingsError("count is out of range", given=count, allowed="a whole number from 1")
    return [(subject, seed + number) for number in range(count) for subject in subjects]


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
    backbone: Backbone, adapter: Adapter, setting: Setting, asked: Sequence[tuple[Subject, int]], common: Request
) -> list[Drawing]:
    """What is drawn at a setting, judged before anything is drawn."""
    requests = [_request(common, setting, subject, seed) for subject, seed in asked]
    for request in requests:
        backbone.require_prompt(request.prompt)
    known = known_of([(adapter, setting.scale)])
    return [settle(request, backbone, adapter.recommended, known) for request in requests]


def _request(common: Request, setting: Setting, subject: Subject, seed: int) -> Request:
    """One picture. The base alone is told the classes by their names, and what it does not take is left out."""
    told = replace(common, seed=seed, guidance_scale=setting.guidance_scale, steps=setting.steps)
    if setting.scale:
        return replace(told, prompt=subject.prompt, class_name=dict(subject.classes) or common.class_name)
    return replace(told, prompt=subject.words, class_name=None, class_scale=None, image_prompt=None,
                   image_prompt_scale=None, control=None)  # fmt: skip


class Drawer:
    """Draws setting by setting and takes the time.

    One batch is drawn before: what the first pictures of a process cost is no property of a setting.
    """

    def __init__(self, backbone: Backbone, adapter: Adapter, batch_size: int, progress: Report, plan: Plan) -> None:
        self.backbone, self.adapter, self.batch_size, self.progress = backbone, adapter, batch_size, progress
        self.plan, self.drawings, self.done, self.started = plan, plan.drawings, 0, time.monotonic()
        with applied(backbone, [(adapter, 1.0)]):  # one that does not fit is refused now
            draw(backbone, self.drawings[plan.grid.settings[0]][:batch_size], batch_size=batch_size)

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
        work = [setting.work(self.plan.passes(setting)) for setting in self.drawings]
        each = len(next(iter(self.drawings.values())))
        spent = time.monotonic() - self.started
        left = spent / sum(work[: self.done]) * sum(work[self.done :]) if self.done else None
        self.progress(self.done * each, len(self.drawings) * each, left)
