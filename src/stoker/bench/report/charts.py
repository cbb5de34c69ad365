"""Charts as SVG text: pure functions from numbers to markup, styled by the page's CSS classes.

Every chart has a title and a description for those who do not see it, and tells its lines apart by label and dash
as well as by colour. NaN breaks a line; a single point becomes a dot; no point at all becomes a sentence.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup

from stoker.bench.report import svg
from stoker.bench.report.scales import Scale, decades, ticks
from stoker.bench.report.text import tick_duration

PERCENTILE_HEIGHT: Final = 340
_GAUGE_SIZE: Final = (400, 76)
_NINES_MAX: Final = 9.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; `low` and `high` draw a band around it. `style` is 1..8: colour and dash."""

    name: str
    y: Sequence[float]
    style: int = 1
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class TimeChart:
    """Lines over seconds. `kind` chooses the y ticks (decimal, binary, time), `write` their text.

    `top` is the least height of the y axis, `rule` an optional (value, label) across it, `marks` are (second, label)
    verticals.
    """

    id: str
    title: str
    description: str
    x: Sequence[float]
    lines: Sequence[Line]
    write: Callable[[float], str]
    kind: str = "decimal"
    top: float = 0.0
    rule: tuple[float, str] | None = None
    marks: Sequence[tuple[float, str]] = field(default_factory=list)
    height: int = 190


@dataclass(frozen=True, slots=True)
class Curve:
    """Latencies in seconds at quantiles 0..1, both ascending."""

    name: str
    quantiles: Sequence[float]
    seconds: Sequence[float]
    style: int = 1


def time_chart(chart: TimeChart) -> Markup:
    """Return the chart; its plot area stands in `data-` attributes for the page's crosshair."""
    highest = _highest(chart)
    if highest is None:
        return nothing_to_draw(chart.title)
    last = max(1e-9, *chart.x)
    y_ticks = ticks(highest, 4, chart.kind)
    right, floor = svg.WIDTH - svg.LABELS, chart.height - svg.BOTTOM
    x, y = Scale(0.0, last, svg.LEFT, right), Scale(0.0, y_ticks[-1], floor, svg.TOP)
    parts = [
        svg.value_axis(y_ticks, y, right, chart.write),
        svg.time_axis([t for t in ticks(last, 8, "time") if t <= last], x, floor),
        svg.marks(chart.marks, x, floor),
        *[svg.band(line.low, line.high, chart.x, (x, y)) for line in chart.lines if len(line.low)],
        *[svg.path(line.y, chart.x, x, y, f"line s{line.style}") for line in chart.lines],
    ]
    if chart.rule:
        parts.append(svg.rule(*chart.rule, y, right))
    parts.append(svg.end_labels([(line.name, line.style, _last(line.y, y)) for line in chart.lines], right, floor))
    parts.append(svg.line("cross", (-9, svg.TOP), (-9, floor)))
    area = {"data-left": svg.LEFT, "data-right": right, "data-x-max": last}
    facts = {key: f"{value:.6g}" for key, value in area.items()}
    words = (chart.title, chart.description)
    return svg.picture(chart.id, words, (svg.WIDTH, chart.height), *parts, data_chart=chart.id, **facts)


def percentile_chart(curves: Sequence[Curve], chart_id: str, title: str, description: str) -> Markup:
    """Return latency against percentile: on the x axis each further nine takes the same room; y is logarithmic."""
    drawn = [(curve, points) for curve in curves if (points := _points(curve))]
    if not drawn:
        return nothing_to_draw(title)
    everything = [point for _, points in drawn for point in points]
    y_ticks = decades(10 ** min(y for _, y in everything), 10 ** max(y for _, y in everything))
    nines = max(1.0, *(x for x, _ in everything))
    right, floor = svg.WIDTH - svg.LABELS, PERCENTILE_HEIGHT - svg.BOTTOM
    x = Scale(0.0, nines, svg.LEFT, right)
    y = Scale(math.log10(y_ticks[0]), math.log10(y_ticks[-1]), floor, svg.TOP)
    parts = [svg.value_axis(y_ticks, lambda value: y(math.log10(value)), right, tick_duration)]
    parts += [_percentile_tick(at, label, x, floor) for at, label in _percentile_ticks(nines)]
    for curve, points in drawn:
        parts.append(svg.path([p[1] for p in points], [p[0] for p in points], x, y, f"line s{curve.style}"))
    ends = [(curve.name, curve.style, y(points[-1][1])) for curve, points in drawn]
    parts.append(svg.end_labels(ends, right, floor))
    return svg.picture(chart_id, (title, description), (svg.WIDTH, PERCENTILE_HEIGHT), *parts)


def gauge(low: float, value: float, high: float, threshold: float) -> Markup:
    """Return utilisation on a track from 0 to 100 %: the figure, its interval, and the threshold it must clear."""
    if not all(math.isfinite(v) for v in (low, value, high, threshold)):
        return nothing_to_draw("Accelerator utilisation")
    x = Scale(0.0, 1.0, 4, 396)
    needed = f"needed {threshold * 100:.1f} %"
    ends = {0.0: "start", 1.0: "end"}
    parts = [
        _rounded("track", 4, 392, 28, 18),
        _rounded("fill", 4, x(value) - 4, 28, 18),
        _rounded("interval", x(low) - 1, x(high) - x(low) + 2, 22, 30),
        svg.line("point", (x(value), 18), (x(value), 56)),
        svg.line("threshold", (x(threshold), 16), (x(threshold), 58)),
        svg.text("threshold-label", (min(max(x(threshold), 46), 352), 12), needed, "middle"),
        *[svg.text("tick", (x(r), 72), f"{r * 100:.0f} %", ends.get(r, "middle")) for r in (0.0, 0.25, 0.5, 0.75, 1.0)],
    ]
    told = f"{value * 100:.2f} %, 95 % interval {low * 100:.2f} to {high * 100:.2f} %, {threshold * 100:.2f} % needed"
    return svg.picture("gauge", ("Accelerator utilisation", told), _GAUGE_SIZE, *parts)


def bar(ratio: float, style: int = 1) -> Markup:
    """Return a horizontal bar that fills `ratio` of its cell; decorative, the number stands beside it."""
    wide = min(1.0, max(0.0, ratio)) * 100 if math.isfinite(ratio) else 0.0
    rail = svg.tag("rect", class_="rail", width=100, height=10)
    fill = svg.tag("rect", class_=f"f{style}", width=f"{wide:.2f}", height=10)
    frame = {"viewBox": "0 0 100 10", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return svg.tag("svg", rail, fill, class_="bar", **frame)


def nothing_to_draw(title: str) -> Markup:
    """Return the sentence that stands where a chart has no data."""
    return svg.tag("p", f"No data for “{title}”.", class_="empty")


def _rounded(css: str, left: float, width: float, top: float, height: float) -> Markup:
    return svg.tag("rect", class_=css, x=left, y=top, width=max(width, 0.0), height=height, rx=min(height / 2, 4))


def _highest(chart: TimeChart) -> float | None:
    drawn = [v for line in chart.lines for values in (line.y, line.high) for v in values if math.isfinite(v)]
    rule = [chart.rule[0]] if chart.rule else []
    return max([*drawn, *rule, chart.top]) if drawn else None


def _last(values: Sequence[float], y: Scale) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return y(finite[-1]) if finite else None


def _points(curve: Curve) -> list[svg.Point]:
    """Return (nines, log10 of seconds), without what a logarithm cannot show."""
    pairs = zip(curve.quantiles, curve.seconds, strict=True)
    return [(_nines(q), math.log10(s)) for q, s in pairs if q < 1.0 and math.isfinite(s) and s > 0]


def _nines(quantile: float) -> float:
    return min(_NINES_MAX, -math.log10(1.0 - quantile))


def _percentile_ticks(nines: float) -> list[tuple[float, str]]:
    whole = [(float(n), f"{100 - 10.0 ** (2 - n):.{max(0, n - 2)}f} %") for n in range(1, math.floor(nines) + 1)]
    return [(0.0, "0 %"), (_nines(0.5), "50 %"), *whole]


def _percentile_tick(at: float, label: str, x: Scale, floor: float) -> Markup:
    return svg.line("grid", (x(at), svg.TOP), (x(at), floor)) + svg.text("tick", (x(at), floor + 18), label, "middle")
