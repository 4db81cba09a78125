"""`adapt.sweep`: one adapter at many settings, from the same noise, as a sheet and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from adapt import files
from adapt.adapter import Adapter
from adapt.api.reference import NONE, Reference, read_reference
from adapt.api.subjects import Classes, subjects_of
from adapt.api.sweeping import Axes, Drawer, Plan, Report, planned, unheard
from adapt.backbones import Backbone
from adapt.evaluation.advice import advise
from adapt.evaluation.eye import Eye
from adapt.evaluation.grid import Setting
from adapt.evaluation.quality import Measured, Quality
from adapt.evaluation.swept import Row, Swept
from adapt.prompts import PLAIN
from adapt.report.contact import Strips, contact_sheet, side_of, strip
from adapt.report.sweep import render_sweep
from adapt.sampling.pictures import if_given, load_image
from adapt.sampling.png import save_png
from adapt.sampling.request import Request

SHEET, PAGE, FIGURES = "sheet.png", "sweep.html", "sweep.json"


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
        base = self.strips[swept.base.setting]
        return contact_sheet(swept.grid, self.strips, base, swept.prompts, swept.recommended)

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
    class_name: Classes = None,
    class_scale: float | None = None,
    image_prompt: Image | str | Path | None = None,
    image_prompt_scale: float | None = None,
    control: Image | str | Path | None = None,
    control_scale: float = 1.0,
    scales: Sequence[float] | None = None,
    guidance_scales: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    count: int | None = None,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 4,
    reference: Reference | str | Path = NONE,
    progress: Report = unheard,
) -> Sweep:
    """Draws the same prompts from the same noise at every combination of settings. The backbone is afterwards what it was.

    Args:
        prompt: one or several; none: captions of the reference, else the prompts of the adapter's samples, else the word
            that calls it.
        class_name: of an adapter that knows classes, as in `generate`: each with each prompt; None: those of the reference's
            class folders.
        class_scale, image_prompt, image_prompt_scale, control, control_scale, height, width: as in `generate`, the same in
            all settings. The base alone is told classes by their names, and no picture.
        scales: of the adapter, 1 as trained; None: 0.7, 1 and 1.3 times the recommended one.
        guidance_scales: from 1, which is off; None: the recommended one, half the push and half as much again.
        steps: inference steps; None: half the recommended, those, half as many again.
        count: pictures of each prompt in every setting, with seeds `seed`, `seed + 1` …; None: so many that a setting has
            at least sixteen.
        batch_size: pictures at once; changes no picture.
        reference: pictures of the style, best ones that were not trained on: a folder, or what `read_reference` gave.
            Without them nothing is said of style, and nothing is recommended.
        progress: `progress(done, total, seconds left)`, in pictures.

    Raises:
        SettingsError: a setting out of range, no prompt, a base that makes no pictures, or an adapter that is taught classes,
            reference pictures or controls and is given none.
        AdapterError: an adapter for another base.
        DataError: reference pictures that cannot be read, or fewer than four.
    """
    common = Request(
        prompt="", prompt_syntax=PLAIN, class_name="" if adapter.labels else None, class_scale=class_scale,
        image_prompt=if_given(load_image, image_prompt), image_prompt_scale=image_prompt_scale,
        control=if_given(load_image, control), control_scale=control_scale, seed=seed, height=height, width=width,
    )  # fmt: skip
    axes = Axes(scales, guidance_scales, steps)
    compared = reference if isinstance(reference, Reference) else read_reference(reference)
    subjects = subjects_of(prompt, class_name, common, adapter, compared)
    plan = planned(backbone, adapter, subjects, common, count, axes)
    drawer = Drawer(backbone, adapter, batch_size, progress, plan)
    first = plan.drawings[plan.base][0]
    eye = Eye(backbone, plan.words, plan.own, compared.pictures, first.height, first.width)
    rows, strips = list[Row](), dict[Setting, Image]()
    for setting in plan.order:
        pictures, seconds = drawer(setting)
        eye.look(pictures)
        rows.append(Row(setting, seconds, passes=plan.passes(setting)))
        strips[setting] = strip(pictures, side_of(backbone.resolution))
    drawer.tell()
    told = _told(backbone, adapter, plan, rows, eye)
    return Sweep(replace(told, beside=_beside(common)), strips)


def _beside(common: Request) -> dict[str, float]:
    """How strongly parts of the condition guided by themselves."""
    control = common.control_scale if common.control is not None else None
    scales = {
        "class_scale": common.class_scale,
        "image_prompt_scale": common.image_prompt_scale,
        "control_scale": control,
    }
    return {name: float(scale) for name, scale in scales.items() if scale is not None}


def _told(backbone: Backbone, adapter: Adapter, plan: Plan, rows: Sequence[Row], eye: Eye) -> Swept:
    """The figures of what was drawn and looked at."""
    measured = Measured(eye.seen())
    quality = measured.quality()
    advice = advise(plan.grid, measured, quality)
    base, *found = with_figures(rows, quality)
    return Swept(
        adapter=adapter.name,
        digest=adapter.digest,
        reference=backbone.reference,
        prompts=plan.prompts,
        seed=plan.seed,
        count=plan.count,
        grid=plan.grid,
        rows=tuple(found),
        base=base,
        present=plan.present,
        recommended=advice.setting,
        reason=advice.reason,
        references=eye.references,
        candidates=eye.candidates,
        separation=quality.separation,
    )


def with_figures(rows: Sequence[Row], quality: Quality) -> list[Row]:
    """Rows with what was measured of each; the base's comes first."""
    names = ("style", "style_error", "prompt", "diversity", "score")
    known = {name: values.tolist() for name in names if (values := getattr(quality, name)) is not None}
    return [replace(row, **{name: values[number] for name, values in known.items()}) for number, row in enumerate(rows)]
