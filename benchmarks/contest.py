"""What a row of the table holds: contests (contenders beside a ceiling) and series (figures that grow), as plain data.

A contest's ratios are taken round by round, ours over the other's in the same round, so that a slow minute of a
shared machine hits both; their median and extremes are told.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.harness import Contender, Round
from stoker.core.units import GiB, format_bytes, format_rate

OURS = "stoker"
"""Names of our own contenders begin with it."""


@dataclass
class Contest:
    """Contenders doing the same work.

    key         names it for the figures to reach, such as `reads/cached/random/4 KiB/depth 32`
    ceiling     the contender that marks what is possible, empty for none
    missing     who would take part and does not → why and the remedy
    """

    key: str
    contenders: list[Contender]
    ceiling: str = ""
    note: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return everything measured, as JSON-ready data."""
        able = [contender for contender in self.contenders if contender.rounds and not contender.failed]
        failed = {contender.name: contender.failed for contender in self.contenders if contender.failed}
        ours = [contender for contender in able if contender.name.startswith(OURS)]
        ratios = [ratio(mine, other) for mine in ours for other in able if other is not mine]
        return {
            "kind": "contest",
            "key": self.key,
            "note": self.note,
            "ceiling": self.ceiling,
            "missing": {**self.missing, **failed},
            "contenders": [figures(contender) for contender in able],
            "ratios": ratios,
        }


@dataclass
class Series:
    """Figures of ours that grow with something: each row is a label and, for each column, the value of every round."""

    key: str
    label: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    note: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, **values: float) -> None:
        """Enter one round of a row."""
        for column in self.columns:
            self.rows.setdefault(row, {}).setdefault(column, []).append(values[column])

    def document(self) -> dict[str, Any]:
        """Return everything measured, as JSON-ready data."""
        rows = [{"label": label, **{c: spread(v) for c, v in columns.items()}} for label, columns in self.rows.items()]
        head = {"kind": "series", "key": self.key, "note": self.note, "label": self.label}
        return {**head, "missing": self.missing, "columns": list(self.columns), "rows": rows}


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return the median, the extremes and the values of all rounds."""
    kept = [float(value) for value in values]
    return {"median": statistics.median(kept), "low": min(kept), "high": max(kept), "rounds": kept}


MEASURES: dict[str, Callable[[Round], float]] = {
    "bytes_per_second": lambda entry: entry.payload_bytes / entry.wall_seconds,
    "samples_per_second": lambda entry: entry.samples / entry.wall_seconds,
    "samples_per_cpu_second": lambda entry: entry.samples / max(entry.cpu_seconds, 1e-9),
    "cpu_seconds_per_gib": lambda entry: entry.cpu_seconds / max(entry.payload_bytes / GiB, 1e-9),
    "peak_bytes": lambda entry: float(entry.peak_bytes),
}


def figures(contender: Contender) -> dict[str, Any]:
    """Return a contender's rounds and what follows from them."""
    measured = {name: spread(map(measure, contender.rounds)) for name, measure in MEASURES.items()}
    return {"name": contender.name, **measured, "rounds": [asdict(entry) for entry in contender.rounds]}


def ratio(mine: Contender, other: Contender) -> dict[str, Any]:
    """Return ours over the other's, for each measure, from the rounds that both did."""
    pairs = list(zip(mine.rounds, other.rounds, strict=False))
    result: dict[str, Any] = {"ours": mine.name, "to": other.name}
    for name, measure in MEASURES.items():
        below = [(measure(one), measure(two)) for one, two in pairs if measure(two) > 0]
        if below:
            result[name] = spread(one / two for one, two in below)
    return result


def of_ours(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ratios of our first contender: the others of ours show what it does in another way."""
    ratios: list[dict[str, Any]] = document.get("ratios", [])
    return [item for item in ratios if item["ours"] == ratios[0]["ours"]]


def contest_markdown(document: dict[str, Any]) -> str:
    """Return a contest as a Markdown table."""
    lines = [f"### {document['key']}", "", *([document["note"], ""] if document["note"] else [])]
    names = [entry["name"] for entry in document["contenders"]]
    if names:
        lines.append(
            "| contender | median | spread | /s | /CPU s | CPU s/GiB | peak memory | of the ceiling "
            "| stoker / it | stoker / it, per CPU s |"
        )
        lines.append("|---|---|---|---|---|---|---|---|---|---|")
    top = next((entry for entry in document["contenders"] if entry["name"] == document["ceiling"]), None)
    lines += [_contest_row(entry, top, of_ours(document)) for entry in document["contenders"]]
    lines += _missing(document)
    return "\n".join(lines) + "\n"


def _contest_row(entry: dict[str, Any], top: dict[str, Any] | None, ratios: list[dict[str, Any]]) -> str:
    rate, per_second = entry["bytes_per_second"], entry["samples_per_second"]["median"]
    most = top["samples_per_second"]["median"] if top else 0.0
    share = f"{100 * per_second / most:.0f} %" if most else ""
    name = f"{entry['name']} (ceiling)" if entry is top else entry["name"]
    mine = next((item for item in ratios if item["to"] == entry["name"]), None)
    peak = entry["peak_bytes"]["median"]
    cells = [
        name,
        format_rate(rate["median"]),
        f"{format_rate(rate['low'])} … {format_rate(rate['high'])}",
        f"{per_second:,.0f}",
        f"{entry['samples_per_cpu_second']['median']:,.0f}",
        f"{entry['cpu_seconds_per_gib']['median']:.3f}",
        format_bytes(peak) if peak else "",
        share,
        _ratio_text(mine, "bytes_per_second"),
        _ratio_text(mine, "samples_per_cpu_second"),
    ]
    return f"| {' | '.join(cells)} |"


def _ratio_text(mine: dict[str, Any] | None, measure: str) -> str:
    if mine is None or measure not in mine:
        return ""
    found = mine[measure]
    return f"{found['median']:.2f} ({found['low']:.2f} … {found['high']:.2f})"


def series_markdown(document: dict[str, Any]) -> str:
    """Return a series as a Markdown table: medians, and the extremes where they differ."""
    lines = [f"### {document['key']}", "", *([document["note"], ""] if document["note"] else [])]
    if document["rows"]:
        lines.append(f"| {document['label']} | {' | '.join(name.replace('_', ' ') for name in document['columns'])} |")
        lines.append("|---" * (len(document["columns"]) + 1) + "|")
    for row in document["rows"]:
        cells = [_cell(name, row[name]) for name in document["columns"]]
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    lines += _missing(document)
    return "\n".join(lines) + "\n"


def _cell(column: str, values: dict[str, Any]) -> str:
    def told(value: float) -> str:
        if column.endswith("bytes"):
            return format_bytes(value)
        if column.endswith("bytes_per_second"):
            return format_rate(value)
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    median = told(values["median"])
    if len(values["rounds"]) == 1:
        return median
    return f"{median} ({told(values['low'])} … {told(values['high'])})"


def _missing(document: dict[str, Any]) -> list[str]:
    lines = [f"Not measured: {name}: {why}." for name, why in document["missing"].items()]
    return ["", *lines] if lines else []


def markdown(document: dict[str, Any]) -> str:
    """Return a contest or a series as a Markdown table."""
    return contest_markdown(document) if document["kind"] == "contest" else series_markdown(document)
