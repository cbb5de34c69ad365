"""The pieces that charts are made of: elements, axes, lines, bands and labels, as escaped SVG text."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup

from stoker.bench.report.scales import Scale

WIDTH: Final = 960
LEFT: Final = 76
LABELS: Final = 132
TOP: Final = 22
BOTTOM: Final = 30
LABEL_CHARACTERS_MAX: Final = 24
MARK_CHARACTER_WIDTH: Final = 6.2

Point = tuple[float, float]
End = tuple[str, int, float | None]


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """Return an element; children and attribute values are escaped unless they are markup already.

    Attribute names lose a closing underscore and turn the others into hyphens: `class_`, `text_anchor`.
    """
    pairs = [Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _word(v)) for key, v in attributes.items()]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(pairs), Markup("").join(children))


def _word(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def picture(chart_id: str, words: tuple[str, str], size: tuple[int, int], *body: Markup, **attributes: str) -> Markup:
    """Return a whole chart with its (title, description) and (width, height)."""
    name = f"chart-{chart_id}"
    head = (tag("title", words[0], id=f"{name}-t"), tag("desc", words[1], id=f"{name}-d"))
    facts: dict[str, str] = {"class_": "chart", "id": name, "role": "img", "viewBox": f"0 0 {size[0]} {size[1]}"}
    return tag("svg", *head, *body, **facts, aria_labelledby=f"{name}-t {name}-d", **attributes)


def line(css: str, begin: Point, end: Point) -> Markup:
    """Return a straight line."""
    return tag("line", class_=css, x1=begin[0], y1=begin[1], x2=end[0], y2=end[1])


def text(css: str, at: Point, words: str, anchor: str = "start") -> Markup:
    """Return words at a point."""
    return tag("text", words, class_=css, x=at[0], y=at[1], text_anchor=anchor)


def value_axis(
    values: Sequence[float], y: Callable[[float], float], right: float, write: Callable[[float], str]
) -> Markup:
    """Return horizontal grid lines with their values."""
    rows = [
        line("grid", (LEFT, y(v)), (right, y(v))) + text("tick", (LEFT - 8, y(v) + 4), write(v), "end") for v in values
    ]
    return Markup("").join(rows)


def time_axis(values: Sequence[float], x: Scale, floor: float) -> Markup:
    """Return the times under a chart."""
    return Markup("").join([text("tick", (x(v), floor + 18), clock(v), "middle") for v in values])


def clock(seconds: float) -> str:
    """Return a time since the start as an axis shows it: `0`, `45 s`, `2:30`, `1:05:00`."""
    if seconds < 60:
        return f"{seconds:g} s" if seconds else "0"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def marks(wanted: Sequence[tuple[float, str]], x: Scale, floor: float) -> Markup:
    """Return verticals at (value, label); a label that would run into its neighbour's or the edge is left out."""
    parts = []
    free_from = -math.inf
    for value, label in wanted:
        at = x(value)
        end = at + MARK_CHARACTER_WIDTH * len(label)
        parts.append(line("mark", (at, TOP - 8), (at, floor)))
        if at >= free_from and end <= x.end + LABELS:
            parts.append(text("mark-label", (at + 4, TOP - 8), label))
            free_from = end + 8
    return Markup("").join(parts)


def rule(value: float, label: str, y: Scale, right: float) -> Markup:
    """Return a labelled line across the chart."""
    return line("rule", (LEFT, y(value)), (right, y(value))) + text("rule-label", (LEFT + 6, y(value) + 14), label)


def runs(values: Sequence[float], xs: Sequence[float]) -> list[list[Point]]:
    """Return the stretches without a gap as lists of (x, value)."""
    found: list[list[Point]] = [[]]
    for at, value in zip(xs, values, strict=True):
        if math.isfinite(value) and math.isfinite(at):
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def path(values: Sequence[float], xs: Sequence[float], x: Scale, y: Scale, css: str) -> Markup:
    """Return a line through the points, broken at gaps; a point alone becomes a dot."""
    parts = []
    for run in runs(values, xs):
        if len(run) == 1:
            parts.append(tag("circle", class_=f"{css} dot", cx=x(run[0][0]), cy=y(run[0][1]), r=2.5))
        else:
            parts.append(tag("polyline", class_=css, points=_points(run, x, y)))
    return Markup("").join(parts)


def band(lows: Sequence[float], highs: Sequence[float], xs: Sequence[float], scales: tuple[Scale, Scale]) -> Markup:
    """Return the area between two lines, with a gap where either has one."""
    x, y = scales
    edges = [
        (low, high) if math.isfinite(low + high) else (math.nan, math.nan)
        for low, high in zip(lows, highs, strict=True)
    ]
    pairs = zip(runs([low for low, _ in edges], xs), runs([high for _, high in edges], xs), strict=True)
    outlines = [f"{_points(high, x, y)} {_points(low[::-1], x, y)}" for low, high in pairs]
    return Markup("").join([tag("polygon", class_="band", points=outline) for outline in outlines])


def _points(run: Sequence[Point], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)


def end_labels(ends: Sequence[End], right: float, floor: float) -> Markup:
    """Return the lines' (name, style, pixel) at their right ends, pushed apart so that none covers another."""
    placed: list[tuple[float, str, int]] = []
    for at, name, style in sorted((at, name, style) for name, style, at in ends if at is not None):
        placed.append((max(at, placed[-1][0] + 15 if placed else TOP), name, style))
    shift = max(0.0, placed[-1][0] - floor) if placed else 0.0
    parts = []
    for at, name, style in placed:
        parts.append(line(f"line s{style}", (right + 6, at - shift), (right + 26, at - shift)))
        parts.append(text("end-label", (right + 31, at - shift + 4), name[:LABEL_CHARACTERS_MAX]))
    return Markup("").join(parts)
