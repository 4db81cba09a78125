"""`adapt.sweep`: one adapter at many settings, from the same noise, as a sheet and figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from adapt import files
from adapt.adapter import Adapter
from adapt.api.generate import applied
from adapt.backbones import Backbone
from adapt.errors import SettingsError
from adapt.evaluation.grid import Grid, Setting, around
from adapt.evaluation.swept import Row, Swept
from adapt.report.contact import Strips, contact_sheet, side_of, strip
from adapt.report.sweep import render_sweep
from adapt.sampling.draw import draw
from adapt.sampling.png import save_png
from adapt.sampling.request import Drawing, Request, settle

SHEET, PAGE, FIGURES = "sheet.png", "sweep.html", "sweep.json"
ENOUGH = 8
"""Pictures of a setting when nothing is said: as many of each prompt as make at least so many."""

Report = Callable[[int, int, float | None], None]
"""`report(done, total, seconds left)`, counted in pictures."""


def unheard(done: int, total: int, left: float | None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What was drawn and found.

    Attributes:
        swept: the figures.
        strips: the first pictures of each setting, small, and those of the base.
    """

    swept: Swept
    strips: Strips

    @property
    def sheet(self) -> Image:
        """The contact sheet."""
        swept = self.swept
        return contact_sheet(swept.grid, self.strips, self.strips[swept.base.setting], swept.prompts)

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Writes `sheet.png`, `sweep.html` and `sweep.json`, over those of an older sweep.

        Returns:
            Where they are, by `sheet`, `page` and `figures`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_png(folder / SHEET, self.sheet)
        files.write(folder / PAGE, render_sweep(self.swept, self.strips))
        files.write(folder / FIGURES, json.dumps(self.swept.as_dict(), indent=2, ensure_ascii=False) + "\n")
        return {"sheet": folder / SHEET, "page": folder / PAGE, "figures": folder / FIGURES}


def sweep(
    backbone: Backbone,
    adapter: Adapter,
    *,
    prompt: str | Sequence[str] = (),
    scales: Sequence[float] | None = None,
    guidance_scales: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    count: int | None = None,
    seed: int = 0,
    batch_size: int = 4,
    progress: Report = unheard,
) -> Sweep:
    """Draws the same prompts from the same noise at every combination of settings. The backbone is afterwards what it was.

    Args:
        prompt: one or several; none: those of the adapter's samples, else the word that calls it.
        scales: of the adapter, 1 as trained; None: 0.7, 1 and 1.3 times the recommended one.
        guidance_scales: from 1, which is off; None: the recommended one, half the push and half as much again.
        steps: inference steps; None: half the recommended, those, half as many again.
        count: pictures of each prompt in every setting, with seeds `seed`, `seed + 1` …; None: so many that a setting has
            at least eight.
        batch_size: pictures at once; changes no picture.
        progress: `progress(done, total, seconds left)`, in pictures.

    Raises:
        SettingsError: a setting out of range, no prompt, or a base that makes no pictures.
        AdapterError: an adapter for another base.
    """
    _require_pictures(backbone)
    prompts = prompts_of(prompt, adapter)
    count = max(1, -(-ENOUGH // len(prompts))) if count is None else count
    asked = asked_of(prompts, count, seed)
    present = present_of(backbone, adapter)
    usual = around(present, int(backbone.scheduler_config.get("num_train_timesteps", 1000)))
    grid = Grid(
        tuple(usual.scales if scales is None else scales),
        tuple(usual.guidance_scales if guidance_scales is None else guidance_scales),
        tuple(usual.steps if steps is None else steps),
    )
    base = replace_scale(present, 0.0)
    drawings = {one: _drawings(backbone, adapter, one, asked) for one in dict.fromkeys([base, *grid.settings])}
    drawer = _Drawer(backbone, adapter, batch_size, progress, drawings)
    rows = {setting: drawer(setting) for setting in drawings}
    swept = Swept(
        adapter.name, adapter.digest, backbone.reference, prompts, seed, count, grid,
        tuple(rows[one] for one in grid.settings), rows[base], present,
    )  # fmt: skip
    return Sweep(swept, drawer.strips)


def prompts_of(given: str | Sequence[str], adapter: Adapter) -> tuple[str, ...]:
    """What is drawn: what was asked for, else the prompts of the adapter's samples, else the word that calls it.

    Raises:
        SettingsError: there is none of them.
    """
    asked = (given,) if isinstance(given, str) else tuple(given)
    recorded = [str(sample["prompt"]) for sample in adapter.facts.samples if sample.get("prompt")]
    found = tuple(dict.fromkeys(asked or recorded or adapter.triggers))
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


def replace_scale(setting: Setting, scale: float) -> Setting:
    """The same with another scale of the adapter."""
    return setting._replace(scale=scale)


def _require_pictures(backbone: Backbone) -> None:
    if backbone.medium.kind != "picture":
        raise SettingsError("a sweep compares pictures", given=f"{backbone.reference} makes {backbone.medium.noun}",
                            next="adapt generate draws one setting at a time")  # fmt: skip


def _drawings(
    backbone: Backbone, adapter: Adapter, setting: Setting, asked: Sequence[tuple[str, int]]
) -> list[Drawing]:
    """What is drawn at a setting, judged before anything is drawn."""
    for prompt, _ in asked:
        backbone.require_prompt(prompt)
    common = Request(prompt="", guidance_scale=setting.guidance_scale, steps=setting.steps)
    requests = [replace(common, prompt=prompt, seed=seed) for prompt, seed in asked]
    return [settle(request, backbone, adapter.recommended) for request in requests]


class _Drawer:
    """Draws setting by setting, takes the time, and keeps a strip of each.

    The first setting is drawn twice: what the first pictures of a process cost is no property of a setting.
    """

    def __init__(
        self, backbone: Backbone, adapter: Adapter, batch_size: int, progress: Report,
        drawings: dict[Setting, list[Drawing]],
    ) -> None:  # fmt: skip
        self.backbone, self.adapter, self.batch_size, self.progress = backbone, adapter, batch_size, progress
        self.drawings, self.strips, self.done, self.spent = drawings, dict[Setting, Image](), 0, 0.0
        with applied(backbone, [(adapter, 1.0)]):  # one that does not fit is refused now
            draw(backbone, next(iter(drawings.values()))[:batch_size], batch_size=batch_size)

    def __call__(self, setting: Setting) -> Row:
        drawings, started = self.drawings[setting], time.perf_counter()
        with applied(self.backbone, [(self.adapter, setting.scale)] if setting.scale else []):
            pictures = draw(self.backbone, drawings, batch_size=self.batch_size)
        seconds = time.perf_counter() - started
        found = [picture for picture in pictures if isinstance(picture, Image)]
        self.strips[setting] = strip(found, side_of(self.backbone.resolution))
        self.done, self.spent = self.done + 1, self.spent + seconds
        self._tell(len(drawings))
        return Row(setting, seconds / len(drawings))

    def _tell(self, each: int) -> None:
        """What is left costs as much for each evaluation as what was done."""
        work = [setting.evaluations for setting in self.drawings]
        left = self.spent / sum(work[: self.done]) * sum(work[self.done :])
        self.progress(self.done * each, len(self.drawings) * each, left)
