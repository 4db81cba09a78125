"""The page of a sweep: pictures and figures through `sweep.html`."""

from __future__ import annotations

from adapt.evaluation.grid import Grid, Setting
from adapt.evaluation.swept import Swept
from adapt.report.contact import SHOWN, Strips
from adapt.report.page import filled
from adapt.report.pictures import uri, webp

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
        blocks=[(scale, _lines(swept.grid, scale, uris)) for scale in swept.grid.scales],
    )


def _lines(grid: Grid, scale: float, uris: dict[Setting, str]) -> list[Line]:
    """Of one block: each guidance scale with its settings and pictures."""
    return [
        (guidance, [(one, uris[one]) for one in (Setting(scale, guidance, steps) for steps in grid.steps)])
        for guidance in grid.guidance_scales
    ]
