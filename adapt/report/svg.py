"""Charts as inline SVG. Colours come from the page (`var(--…)`), so that they follow light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 40
MOST_POINTS = 600
"""A longer line is thinned: more points than pixels only make the file larger."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Attributes:
    points: (x, y), by rising x; what is not finite is left out.
    label: in the legend; "" leaves it out.
    style: classes of the page: `c1` … `c4` colours, `thin`, `faint`, `dashed`.
    errors: half the length of the bar at each point, or none.
    dots: whether each point has a mark.
    line: whether the points are joined.
    """

    points: Sequence[Point]
    label: str = ""
    style: str = "c1"
    errors: Sequence[float | None] = ()
    dots: bool = False
    line: bool = True


@dataclass(frozen=True)
class Mark:
    """A vertical line with a word."""

    x: float
    label: str


@dataclass(frozen=True)
class Frame:
    """What stands for the axes: values to places in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (min(max(y, self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    level: float | None = None,
) -> Markup:
    """Lines over x; "" when there is no point at all.

    Args:
        title: read out by screen readers.
        level: a horizontal line (1: like the base).
    """
    drawn = [_finite(s) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return Markup("")
    frame = _frame(drawn, level)
    parts = [_axes(frame, x_label, y_label)]
    if level is not None:
        parts.append(_level(frame, level))
    parts += [_mark(frame, mark) for mark in marks if frame.x[0] <= mark.x <= frame.x[1]]
    parts += [_line(frame, s) for s in drawn]
    # The attributes are for readers that do not apply the page's style to a drawing; the style goes before them.
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-size="11" fill="currentColor">')
    head = head.format(WIDTH, HEIGHT, title)
    return head + Markup("").join(parts) + Markup("</svg>") + _legend(drawn)


def _finite(series: Series) -> Series:
    errors = [*series.errors, *[None] * (len(series.points) - len(series.errors))]
    kept = [(p, e) for p, e in zip(series.points, errors, strict=True) if all(map(math.isfinite, p))]
    kept = kept if len(kept) <= MOST_POINTS else kept[:: math.ceil(len(kept) / MOST_POINTS)]
    return replace(series, points=[p for p, _ in kept], errors=[e for _, e in kept])


def _frame(series: Sequence[Series], level: float | None) -> Frame:
    xs = [x for s in series for x, _ in s.points]
    lows = [y - (e or 0) for s in series for (_, y), e in zip(s.points, s.errors, strict=True)]
    highs = [y + (e or 0) for s in series for (_, y), e in zip(s.points, s.errors, strict=True)]
    more = [] if level is None else [level]
    return Frame(_wide(min(xs), max(xs), 0.0), _wide(min([*lows, *more]), _high([*highs, *more])))


def _high(values: Sequence[float]) -> float:
    """The highest, unless a few outliers would press all others flat: those are drawn at the edge."""
    ordered = sorted(values)
    usual = ordered[int(0.98 * (len(ordered) - 1))]
    return min(ordered[-1], usual + 0.5 * (usual - ordered[0])) if len(ordered) > 50 else ordered[-1]


def _wide(low: float, high: float, margin: float = 0.06) -> tuple[float, float]:
    if high <= low:
        return low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    return low - margin * (high - low), high + margin * (high - low)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between the two."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step: float = next(power * m for m in (1, 2, 5, 10) if raw <= power * m * 1.25)
    first = math.ceil(low / step - 1e-9)
    found: list[float] = []
    while (first + len(found)) * step <= high * (1 + 1e-12) + 1e-12:
        found.append(round((first + len(found)) * step, 12))
    return found


def _axes(frame: Frame, x_label: str, y_label: str) -> Markup:
    parts = []
    for value in ticks(*frame.y):
        x, y = frame.at(frame.x[0], value)
        parts += [_rule("grid", (x, y), (WIDTH - RIGHT, y)), _text(f"{value:g}", x - 6, y + 4, "end")]
    for value in ticks(*frame.x, count=8):
        x, y = frame.at(value, frame.y[0])
        parts.append(_text(f"{value:g}", x, y + 16, "middle"))
    parts.append(_text(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle"))
    turned = Markup('<text class="tick" transform="translate(12 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>')
    parts.append(turned.format((TOP + HEIGHT - BOTTOM) / 2, y_label))
    return Markup("").join(parts)


def _rule(style: str, start: Point, end: Point) -> Markup:
    line = Markup('<line class="{}" stroke="currentColor" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(style, *start, *end)


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _level(frame: Frame, level: float) -> Markup:
    left, y = frame.at(frame.x[0], level)
    return _rule("level", (left, y), (WIDTH - RIGHT, y))


def _mark(frame: Frame, mark: Mark) -> Markup:
    x, _ = frame.at(mark.x, frame.y[0])
    end, shift = ("end", -5) if x > WIDTH * 0.7 else ("start", 5)
    return _rule("mark", (x, TOP), (x, HEIGHT - BOTTOM)) + _text(mark.label, x + shift, TOP + 24, end)


def _line(frame: Frame, series: Series) -> Markup:
    places = [frame.at(*point) for point in series.points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    polyline = Markup('<polyline class="line {}" fill="none" stroke="currentColor" points="{}"/>')
    parts = [polyline.format(series.style, joined)] if series.line else []
    for (x, y), error in zip(series.points, series.errors, strict=True):
        if error:
            parts.append(_bar(series.style, frame.at(x, y - error), frame.at(x, y + error)))
    if series.dots or len(places) == 1:
        dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
        parts += [dot.format(series.style, x, y) for x, y in places]
    return Markup("").join(parts)


def _bar(style: str, low: Point, high: Point) -> Markup:
    """With caps: a short one would vanish in its dot."""
    caps = [_rule(f"bar {style}", (x - 4, y), (x + 4, y)) for x, y in (low, high)]
    return _rule(f"bar {style}", low, high) + Markup("").join(caps)


def _legend(series: Sequence[Series]) -> Markup:
    entry = Markup('<span><i class="{}"></i>{}</span>')
    return Markup('<p class="legend">{}</p>').format(
        Markup("").join(entry.format(s.style, s.label) for s in series if s.label)
    )
