"""The page: facts through `template.html`. Jinja2 escapes everything that is not marked as our own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from adapt import files
from adapt.evaluation.measurement import Band, Measurement
from adapt.progress import duration
from adapt.report import pictures
from adapt.report.facts import Facts, Setting, facts_of
from adapt.report.svg import Mark, Series, chart
from adapt.report.wording import figure, shown

NAME = "report.html"
TEMPLATE = "template.html"


def write_report(run: Path, path: Path | None = None) -> Path:
    """Reads a run's folder and writes the page, over an older one.

    Args:
        path: where to; None: `report.html` in the folder.

    Raises:
        RunError: the folder holds no run.
    """
    facts = facts_of(run)
    page = render(facts, pictures.grid(run, facts))
    path = path or run / NAME
    files.write(path, page)
    return path


def render(facts: Facts, grid: pictures.Grid) -> str:
    """The page; a pure function of the two."""
    return filled(
        TEMPLATE,
        facts=facts,
        grid=grid,
        measured=facts.measurement,
        verdict=verdict(facts),
        notes=notes(facts),
        charts={
            "loss": loss_chart(facts),
            "held_out": held_out_chart(facts),
            "curve": curve_chart(facts),
        },
        sections=by_section(s for s in facts.settings if s.changed),
        defaults=[s for s in facts.settings if not s.changed],
    )


def filled(template: str, **values: Any) -> str:
    """A template of this folder with its values; everything is escaped that is not marked as our own."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, figure=figure, duration=duration)
    text: str = environment.get_template(template).render(**values)
    return text


# ---------------------------------------------------------------------------------------------------- in words
def verdict(facts: Facts) -> str:
    """The run in one sentence."""
    standing = {
        "finished": f"Finished after {facts.step} steps.",
        "training": f"Training: step {facts.step} of {facts.steps}.",
        "stopped": f"Stopped after step {facts.step} of {facts.steps}{f': {facts.reason}' if facts.reason else ''}.",
    }[facts.state]
    m, kept = facts.measurement, "became the adapter" if facts.state == "finished" else "would become the adapter now"
    if facts.chosen is None:
        return standing
    which = {"ema": " (moving average)", "raw": " (last weights)"}.get(str(facts.weights), "")
    if m is None:
        return f"{standing} Step {facts.chosen}{which} {kept}; nothing was held out to judge it by."
    error = "" if m.standard_error is None else f" ± {m.standard_error:.3f}"
    return (
        f"{standing} Step {facts.chosen}{which} {kept}: on {m.pictures} pictures that were not trained on, "
        f"its loss is {m.ratio:.3f}{error} of the base's."
    )


def notes(facts: Facts) -> list[str]:
    """What is worth knowing about the measurements."""
    m, last = facts.measurement, facts.measurements[-1] if facts.measurements else None
    if m is None or last is None:
        return []
    found = []
    if m.ratio >= 1:
        found.append(
            "Nothing carried over to held-out pictures: try a lower learning rate, fewer steps or more pictures."
        )
    if last.step > m.step:
        found.append(f"The last measured step, {last.step}, stands at {last.ratio:.3f} of the base's loss.")
    if m.gap is not None and m.gap_error is not None and m.gap > 2 * m.gap_error:
        more = figure(100 * (math.exp(m.gap) - 1), 2)
        found.append(
            f"Training pictures gained more than held-out ones: against the base, the held-out loss is {more}\u00a0% higher than "
            "theirs, more than chance explains. Some of what was learned is these very pictures."
        )
    if m.pictures < 4:
        found.append(f"{m.pictures} held-out picture{'s' if m.pictures > 1 else ''} only indicate.")
    return found


def by_section(settings: Iterable[Setting]) -> list[tuple[str, list[Setting]]]:
    """Settings under the headings of their sections."""
    return [(title, list(rows)) for title, rows in groupby(settings, key=lambda s: s.section)]


# ---------------------------------------------------------------------------------------------------- charts
def loss_chart(facts: Facts) -> Markup:
    """The training loss, as it is and smoothed."""
    points = sorted(facts.losses.items())
    series = [
        Series(points, "each step", "c4 thin"),
        Series(smoothed(points), "smoothed", "c1"),
    ]
    return chart(series, "Training loss by step", "step", "training loss", _marks(facts))


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Exponential average over about a twentieth of the points, without the pull of its start (as Adam corrects its own)."""
    decay = 1 - 1 / max(3.0, len(points) / 20)
    average, weight, found = 0.0, 0.0, []
    for x, y in points:
        if math.isfinite(y):
            average, weight = decay * average + (1 - decay) * y, decay * weight + (1 - decay)
            found.append((x, average / weight))
    return found


def held_out_chart(facts: Facts) -> Markup:
    """The held-out ratio with its standard error, and the gain on training pictures beside it."""
    measured = facts.measurements
    ratios = [(m.step, m.ratio) for m in measured]
    known = [(m.step, m.ratio * math.exp(m.members - m.log_ratio)) for m in measured
             if m.members is not None and m.log_ratio is not None]  # fmt: skip
    series = [
        Series(known, "training pictures (held-out ratio less the gap)", "c2 dashed"),
        Series(ratios, "held-out pictures ± standard error", "c1", [m.standard_error for m in measured], dots=True),
    ]
    return chart(
        series, "Held-out loss by step, relative to the base", "step", "loss ÷ base's", _marks(facts), level=1.0
    )


def curve_chart(facts: Facts) -> Markup:
    """The ratio by noise: the chosen step, and the last where it is another."""
    m, last = facts.measurement, facts.measurements[-1] if facts.measurements else None
    if m is None or last is None:
        return Markup("")
    series = [_curve(m, f"step {m.step}, kept", "c1", bars=True)]
    if last.step != m.step:
        series.insert(0, _curve(last, f"step {last.step}, last", "c3 dashed", bars=False))
    return chart(series, "Held-out loss by noise, relative to the base", "share of noise", "loss ÷ base's", level=1.0)


def _curve(m: Measurement, label: str, style: str, bars: bool) -> Series:
    kept: list[tuple[Band, float]] = [(b, b.log_ratio) for b in m.curve if b.log_ratio is not None]
    points = [(band.noise, math.exp(value)) for band, value in kept]
    errors = [
        math.exp(value) * band.standard_error if band.standard_error is not None else None for band, value in kept
    ]
    return Series(points, label, style, errors if bars else (), dots=True)


def _marks(facts: Facts) -> list[Mark]:
    return [] if facts.measurement is None or facts.chosen is None else [Mark(facts.chosen, "kept")]
