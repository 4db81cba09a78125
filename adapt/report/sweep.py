"""The page of a sweep: pictures and figures through `sweep.html`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from markupsafe import Markup

from adapt.evaluation.grid import Grid, Setting
from adapt.evaluation.swept import Swept
from adapt.report.contact import SHOWN, Strips
from adapt.report.page import filled
from adapt.report.pictures import uri, webp
from adapt.report.svg import Mark, Series, chart

TEMPLATE = "sweep.html"
Line = tuple[float, list[tuple[Setting, str]]]


def render_sweep(swept: Swept, strips: Strips) -> str:
    """The page, which needs nothing else.

    Args:
        strips: as in `contact_sheet`; the base's under its own setting.
    """
    uris = {setting: uri(webp(strip)) for setting, strip in strips.items()}
    return filled(
        TEMPLATE,
        swept=swept,
        rows=list(swept.rows),
        prompts=[swept.prompts[i % len(swept.prompts)] for i in range(min(SHOWN, swept.pictures))],
        base=uris[swept.base.setting],
        chosen=next((row for row in swept.rows if row.setting == swept.recommended), None),
        columns=[n for n in ("style", "prompt", "diversity", "score") if getattr(swept.rows[0], n) is not None],
        charts={"score": cost_chart(swept), "style": style_chart(swept)},
        blocks=[(scale, _lines(swept.grid, scale, uris)) for scale in swept.grid.scales],
    )


def _lines(grid: Grid, scale: float, uris: dict[Setting, str]) -> list[Line]:
    """Of one block: each guidance scale with its settings and pictures."""
    return [
        (guidance, [(one, uris[one]) for one in (Setting(scale, guidance, steps) for steps in grid.steps)])
        for guidance in grid.guidance_scales
    ]


# ---------------------------------------------------------------------------------------------------- charts
def cost_chart(swept: Swept) -> Markup:
    """The score over the work, and the line of those that nothing beats."""
    points = sorted((row.evaluations, row.score) for row in swept.rows if row.score is not None)
    best = frontier(points)
    series = [
        Series(points, "a setting", "c2", dots=True, line=False),
        Series(best, "none better at this work", "c1", dots=True),
    ]
    marks = [Mark(swept.recommended.work(swept.grid.passes), "recommended")] if swept.recommended else []
    return chart([s for s in series if s.points], "Score by work", "evaluations a picture", "score", marks)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those (work, score) that no other beats with as little work, by rising work."""
    kept = list[tuple[float, float]]()
    for work, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not kept or score > kept[-1][1]:
            kept.append((work, score))
    return kept


def style_chart(swept: Swept) -> Markup:
    """Style over the adapter's scale, one line a guidance scale."""
    if swept.rows[0].style is None or len(swept.grid.scales) < 2:
        return Markup("")
    series = []
    for number, guidance in enumerate(swept.grid.guidance_scales[:4]):
        points = [(scale, mean(_styles(swept, scale, guidance))) for scale in swept.grid.scales]
        series.append(Series(points, f"guidance scale {guidance:g}", f"c{number + 1}", dots=True))
    return chart(series, "Style by scale of the adapter", "scale of the adapter", "style", level=0.0)


def _styles(swept: Swept, scale: float, guidance: float) -> list[float]:
    there = (row for row in swept.rows if row.setting[:2] == (scale, guidance))
    return [row.style for row in there if row.style is not None]
