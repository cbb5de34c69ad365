"""Charts are well-formed, bounded and readable whatever the numbers are."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from stoker.bench.report import charts
from stoker.bench.report.scales import Scale, decades, ticks
from stoker.bench.report.svg import clock, end_labels, marks
from stoker.bench.report.text import tick_duration

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.one_of(st.floats(0, 1e12), st.just(math.nan), st.just(math.inf))


def parse(markup: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def chart(x: list[float], y: list[float], **changes) -> Markup:
    facts = {"id": "au", "title": "Title", "description": "Words", "x": x, "write": str}
    lines = changes.pop("lines", [charts.Line("mean", y)])
    return charts.time_chart(charts.TimeChart(**{**facts, "lines": lines, **changes}))


def test_chart_has_title_and_description_for_those_who_do_not_see_it() -> None:
    root = parse(chart([0.0, 1.0], [0.5, 0.7]))
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert [named[name] for name in root.get("aria-labelledby", "").split()] == ["Title", "Words"]


def test_gap_breaks_the_line_and_a_lone_point_becomes_a_dot() -> None:
    root = parse(chart([0, 1, 2, 3, 4], [1, 2, math.nan, 4, math.nan]))
    assert len(root.findall(f"{SVG}polyline")) == 1
    assert len(root.findall(f"{SVG}circle")) == 1


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [math.nan])])
def test_nothing_to_draw_is_said(x: list[float], y: list[float]) -> None:
    assert "No data" in chart(x, y)
    assert "No data" in charts.percentile_chart([], "latency", "Title", "Words")
    assert "No data" in charts.gauge(math.nan, 0.5, 0.6, 0.9)


def test_one_point_is_drawn() -> None:
    assert len(parse(chart([0.0], [0.0])).findall(f"{SVG}circle")) == 1


def test_texts_are_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    markup = chart([0, 1], [1, 2], id=hostile, title=hostile, description=hostile, marks=[(0.0, hostile)])
    assert "<script" not in markup
    assert parse(markup).find(f"{SVG}title").text == hostile
    curve = charts.Curve(hostile, [0.5, 0.9], [1e-3, 2e-3])
    assert "<script" not in charts.percentile_chart([curve], hostile, hostile, hostile)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, max_size=12), st.lists(NUMBERS, max_size=12))
def test_any_numbers_give_a_chart_inside_its_frame(values: list[float], lows: list[float]) -> None:
    size = min(len(values), len(lows))
    lines = [charts.Line("a", values[:size], 1, lows[:size], values[:size])]
    markup = chart([float(i) for i in range(size)], [], lines=lines)
    assert "nan" not in markup and "inf" not in markup
    if "<svg" in markup:
        for points in re.findall(r'points="([^"]*)"', markup):
            for point in points.split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 960 and 0 <= y <= 190


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1e6), min_size=3, max_size=3))
@example([0.0, 0.0, 5e-324])
def test_any_latencies_give_a_percentile_chart(seconds: list[float]) -> None:
    markup = charts.percentile_chart([charts.Curve("read", [0.5, 0.99, 0.999], seconds)], "latency", "Title", "Words")
    assert ("No data" in markup) == (not any(value > 0 for value in seconds))
    assert "nan" not in markup


@settings(max_examples=60, deadline=None)
@given(*[st.floats(-2, 2)] * 4)
def test_gauge_stays_on_its_track(low: float, value: float, high: float, threshold: float) -> None:
    root = parse(charts.gauge(low, value, high, threshold))
    for element in root.iter(f"{SVG}line"):
        assert 4 <= float(element.get("x1", "0")) <= 396


@pytest.mark.parametrize(("ratio", "width"), [(0.5, "50.00"), (-1, "0.00"), (7, "100.00"), (math.nan, "0.00")])
def test_bar_is_clamped(ratio: float, width: str) -> None:
    assert f'width="{width}"' in charts.bar(ratio)


@pytest.mark.parametrize(
    ("high", "kind", "expected"),
    [
        (1.0, "decimal", [0, 0.25, 0.5, 0.75, 1.0]),
        (9.3, "decimal", [0, 2.5, 5, 7.5, 10]),
        (3 * 2**30, "binary", [0, 2**30, 2**31, 3 * 2**30]),
        (600.0, "time", [0, 300, 600]),
        (0.0, "decimal", [0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_ticks_are_round_and_reach_the_top(high: float, kind: str, expected: list[float]) -> None:
    assert ticks(high, 4, kind)[: len(expected)] == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-12, 1e14), st.sampled_from(["decimal", "binary", "time"]), st.integers(2, 10))
def test_ticks_are_few_and_cover_the_range(high: float, kind: str, count: int) -> None:
    found = ticks(high, count, kind)
    assert 2 <= len(found) <= count + 2
    assert found[0] == 0 and found[-1] >= high * (1 - 1e-6)


def test_decades_cover_and_are_thinned() -> None:
    assert decades(2e-5, 3.0) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
    assert len(decades(1e-9, 1e9)) <= 10
    assert decades(1.0, 1.0) == pytest.approx([1.0, 10.0])


def test_scale_of_no_width_maps_to_the_middle() -> None:
    assert Scale(2.0, 2.0, 0.0, 10.0)(2.0) == 5.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0"), (45, "45 s"), (2.5, "2.5 s"), (150, "2:30"), (3900, "1:05:00")]
)
def test_clock(seconds: float, words: str) -> None:
    assert clock(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0"), (1e-7, "100 ns"), (2.5e-4, "250 µs"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"), (300, "5 min")],
)
def test_tick_duration(seconds: float, words: str) -> None:
    assert tick_duration(seconds) == words


def test_end_labels_do_not_cover_each_other() -> None:
    root = ElementTree.fromstring(f"<g>{end_labels([(f'stage {n}', 1, 300.0) for n in range(8)], 800, 310)}</g>")
    heights = sorted(float(element.get("y", "0")) for element in root.iter("text"))
    assert all(later - earlier >= 14 for earlier, later in itertools.pairwise(heights))
    assert heights[-1] <= 330


def test_labels_of_crowded_marks_are_left_out_but_not_the_marks() -> None:
    markup = marks([(n / 10, f"epoch {n}") for n in range(50)], Scale(0, 5, 76, 828), 160)
    assert markup.count("<line") == 50
    assert 2 < markup.count("<text") < 20
