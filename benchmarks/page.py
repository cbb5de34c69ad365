"""Puts the saved table's figures into the guide, between two marks: `python -m benchmarks.page`. Nothing is typed."""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.contest import of_ours, series_markdown
from benchmarks.goals import goals_markdown
from benchmarks.table import NAME, elsewhere
from stoker.core.units import format_bytes, format_rate

PAGE = Path("docs/guide/performance.md")
RESULTS = Path("benchmarks/results")
START, END = "<!-- figures: python -m benchmarks.page -->", "<!-- end of figures -->"
NOTHING = "No table has been saved yet: run `make bench`."


def summary(document: dict[str, Any]) -> str:
    """Return the figures of a saved table for the guide: one line a contest, series as they are."""
    facts = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    peers = ", ".join(f"{name} {value}" for name, value in document["peers"].items()) or "none"
    lines = [f"At {document['utc'][:10]}, by `{document['command']}`.", ""]
    lines += [f"Machine: {facts}. Peers: {peers}.", "", "### Figures to reach", "", goals_markdown(document)]
    for row in document["rows"].values():
        lines += [f"### {row['title']}", "", row["what"], "", f"`{row['command']}`, {row['rounds']} rounds.", ""]
        other = elsewhere(document, row)
        lines += [other, ""] if other else []
        contests = [entry for entry in row["entries"] if entry["kind"] == "contest" and entry["contenders"]]
        if contests:
            lines.append("| work | contender | median | CPU s/GiB | memory | stoker / it | same, per CPU second |")
            lines.append("|---|---|---|---|---|---|---|")
            lines += [line for entry in contests for line in contest_lines(entry)]
        lines += ["", *(series_markdown(entry) for entry in row["entries"] if entry["kind"] == "series")]
    return "\n".join(lines).rstrip()


def contest_lines(entry: dict[str, Any]) -> list[str]:
    """Return a contest's lines, one a contender."""
    lines = []
    for number, contender in enumerate(entry["contenders"]):
        ratio = next((item for item in of_ours(entry) if item["to"] == contender["name"]), {})
        peak = contender["peak_bytes"]["median"]
        cells = [
            "" if number else entry["key"],
            contender["name"] + (" (ceiling)" if contender["name"] == entry["ceiling"] else ""),
            f"{format_rate(contender['bytes_per_second']['median'])}",
            f"{contender['cpu_seconds_per_gib']['median']:.3f}",
            format_bytes(peak) if peak else "",
            *(_times(ratio.get(measure)) for measure in ("bytes_per_second", "samples_per_cpu_second")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _times(found: dict[str, Any] | None) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} … {found['high']:.2f})" if found else ""


def with_figures(page: str, results: Path) -> str:
    """Return the page with the figures of the table saved in `results` between its marks."""
    saved = results / f"{NAME}.json"
    figures = summary(json.loads(saved.read_text())) if saved.is_file() else NOTHING
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{figures}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    options.page.write_text(with_figures(options.page.read_text(), options.results))


if __name__ == "__main__":
    main()
