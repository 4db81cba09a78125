"""Previews as small WebP data URIs: prompts × steps, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.report.facts import Facts, Round

if TYPE_CHECKING:
    from PIL.Image import Image

BUDGET = 3_300_000
"""Bytes of all pictures before base64, which adds a third: the page stays below 5 MB."""
SIDES = (256, 192, 128, 96, 64)
"""Longest sides that are tried, largest first."""
MOST_STEPS, MOST_PROMPTS = 10, 24
SAMPLE = 12
"""After so many pictures it is judged whether all will fit."""
QUALITY = 82


@dataclass(frozen=True)
class Grid:
    """Attributes:
    steps: columns.
    rows: prompt and one data URI a step; None where there is no picture.
    left_out: how many steps and prompts are not shown.
    """

    steps: tuple[int, ...]
    rows: tuple[tuple[str, tuple[str | None, ...]], ...]
    left_out: tuple[int, int]


def grid(run: Path, facts: Facts, budget: int = BUDGET) -> Grid:
    """The newest previews of each step; the largest size that fits, then fewer steps."""
    rounds = thinned(facts.rounds, facts.chosen, MOST_STEPS)
    prompts = sorted({prompt for r in facts.rounds for prompt in enumerate(r.prompts)})
    shown = prompts[:MOST_PROMPTS]
    while True:
        for side in SIDES:
            table = _encoded(run, rounds, shown, side, budget)
            if table is not None:
                left_out = (len(facts.rounds) - len(rounds), len(prompts) - len(shown))
                rows = tuple((prompt, tuple(map(_uri, row))) for (_, prompt), row in zip(shown, table, strict=True))
                return Grid(tuple(r.step for r in rounds), rows, left_out)
        rounds = thinned(rounds, facts.chosen, len(rounds) // 2)


def _encoded(
    run: Path, rounds: Sequence[Round], prompts: Sequence[tuple[int, str]], side: int, budget: int
) -> list[list[bytes | None]] | None:
    """All pictures at this size, one row a prompt; None as soon as it is clear that they do not fit."""
    table: list[list[bytes | None]] = [[None] * len(rounds) for _ in prompts]
    places = [(i, k) for k in range(len(rounds)) for i in range(len(prompts))]
    used = 0
    for done, (i, k) in enumerate(places, 1):
        content = table[i][k] = _picture(run, rounds[k], *prompts[i], side)
        used += len(content or b"")
        if used > budget or (done == SAMPLE and used / done * len(places) > 1.3 * budget):
            return None
    return table


def thinned(rounds: Sequence[Round], chosen: int | None, most: int) -> list[Round]:
    """At most so many: the first, the last, the chosen one or the nearest to it, and evenly between."""
    if len(rounds) <= most or most < 2:
        return list(rounds)[-most:] if most else []
    kept = {round(k * (len(rounds) - 1) / max(most - 1, 1)) for k in range(most)}
    if chosen is not None and most > 2:
        nearest = min(range(len(rounds)), key=lambda i: abs(rounds[i].step - chosen))
        inner = [i for i in kept if 0 < i < len(rounds) - 1]
        kept -= {min(inner, key=lambda i: abs(i - nearest))} if nearest not in kept and inner else set()
        kept.add(nearest)
    return [rounds[i] for i in sorted(kept)][:most]


def _picture(run: Path, drawn: Round, number: int, prompt: str, side: int) -> bytes | None:
    """The picture of this prompt in that round as WebP; None when it is not there or damaged."""
    from PIL import Image, UnidentifiedImageError

    if number >= len(drawn.prompts) or drawn.prompts[number] != prompt:
        return None
    try:
        with Image.open(run / "previews" / f"step-{drawn.step:06d}" / f"{number + 1:02d}.png") as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return webp(small)


def webp(picture: Image) -> bytes:
    """A picture as it is in a page."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def uri(content: bytes) -> str:
    """The same as the address of an `<img>`."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def _uri(content: bytes | None) -> str | None:
    return None if content is None else uri(content)
