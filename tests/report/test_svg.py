"""Charts: values where they belong, round ticks, nothing infinite, text escaped."""

import itertools
import re
import xml.etree.ElementTree as tree

import pytest

from adapt.report.svg import MOST_POINTS, Frame, Mark, Series, chart, ticks

NAN, INF = float("nan"), float("inf")


def drawn(*series, **more):
    text = str(chart(series, "a title", "steps", "loss", **more))
    return tree.fromstring(text[: text.index("</svg>") + 6]), text


def places(svg):
    return [[tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in svg.iter("polyline")]


@pytest.mark.parametrize("scale", [1e-6, 1, 3e5])
def test_a_line_is_linear_in_its_values(scale):
    svg, _ = drawn(Series([(0, 0), (10, 5 * scale), (20, 10 * scale)]))
    (a, b, c) = places(svg)[0]
    assert b == pytest.approx(((a[0] + c[0]) / 2, (a[1] + c[1]) / 2), abs=0.11)
    assert a[0] < c[0] and a[1] > c[1]  # up is more


def test_ticks_stand_where_their_values_do():
    svg, _ = drawn(Series([(0, 0.2), (100, 1.0)]), level=1.0)
    level = next(line for line in svg.iter("line") if line.get("class") == "level")
    grid = {float(t.text): float(t.get("y")) - 4 for t in svg.iter("text") if t.get("text-anchor") == "end"}
    assert float(level.get("y1")) == pytest.approx(grid[1.0], abs=0.11)
    assert places(svg)[0][1][1] == pytest.approx(grid[1.0], abs=0.11)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.05, 1.06), (-3, 12), (0, 160), (1e-7, 3e-7), (-2e5, 7e5)])
def test_ticks_are_round_even_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 9 and all(low - 1e-9 <= t <= high + 1e-9 for t in found)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert max(steps) - min(steps) < 1e-6 * steps[0]
    assert re.fullmatch(r"[125]\.?0*e.*", f"{steps[0]:.6e}")
    assert found[0] - low < steps[0] * 1.0001 and high - found[-1] < steps[0] * 1.0001


def test_what_is_not_finite_is_left_out_and_an_outlier_is_drawn_at_the_edge():
    svg, text = drawn(Series([(0, 1.0), (1, NAN), (2, INF), (3, 2.0)]))
    assert len(places(svg)[0]) == 2 and "nan" not in text and "inf" not in text
    svg, _ = drawn(Series([(x, 1e9 if x == 50 else 1.0 + x / 100) for x in range(100)]))
    heights = [y for _, y in places(svg)[0]]
    assert max(heights) - min(h for i, h in enumerate(heights) if i != 50) > 100  # the others are not pressed flat
    assert min(heights) >= 11.9


def test_one_point_and_none():
    svg, _ = drawn(Series([(5, 3.0)]))
    assert len(list(svg.iter("circle"))) == 1
    assert chart([Series([])], "t", "x", "y") == "" == chart([], "t", "x", "y")


def test_error_bars_are_as_long_as_their_errors():
    svg, _ = drawn(Series([(0, 1.0), (1, 2.0)], errors=[0.5, None], dots=True))
    bars = [line for line in svg.iter("line") if line.get("class", "").startswith("bar")]
    stem = next(line for line in bars if line.get("x1") == line.get("x2"))
    (_, one), (_, two) = places(svg)[0]
    assert float(stem.get("y1")) - float(stem.get("y2")) == pytest.approx(one - two, abs=0.21)  # ± 0.5 is 1 high
    assert len(bars) == 3


def test_long_lines_are_thinned_evenly():
    svg, _ = drawn(Series([(x, float(x % 7)) for x in range(10_000)]))
    xs = [x for x, _ in places(svg)[0]]
    assert len(xs) <= MOST_POINTS and max(b - a for a, b in itertools.pairwise(xs)) < 3


def test_labels_are_escaped_and_marks_stand_inside():
    _, text = drawn(Series([(0, 1.0), (9, 2.0)], label='<b>&"'), marks=[Mark(3, "<i>"), Mark(99, "outside")])
    assert "<b>" not in text and "&lt;b&gt;&amp;&#34;" in text and "&lt;i&gt;" in text and "outside" not in text
    assert str(chart([Series([(0, 1.0)])], '"><script>', "x", "y")).count("<script>") == 0


def test_a_frame_clips_what_is_above():
    frame = Frame((0, 1), (0, 1))
    assert frame.at(0, 5)[1] == frame.at(0, 1)[1] < frame.at(0, 0)[1]
