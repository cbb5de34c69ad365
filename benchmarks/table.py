"""The peer table: runs its rows, and writes them as JSON (every round) and Markdown, after each row anew."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.conditions import Conditions
from benchmarks.contest import markdown
from benchmarks.goals import goals_markdown
from benchmarks.harness import PeerError, machine
from benchmarks.rows import ceiling, epochs, generation, growth, objects, reads, small_files
from stoker.core.clock import utc_text
from stoker.core.errors import StokerError

NAME = "table"
_HOW = (
    "Medians of the rounds, and their extremes; contenders take turns in each round, and ratios are those within a "
    "round. CPU is that of all processes that take part; memory the sum of their high-water marks."
)


class Entry(Protocol):
    """A contest or a series."""

    def document(self) -> dict[str, Any]: ...


class Row(NamedTuple):
    """A part of the table that can be run alone; `what` explains its contenders."""

    title: str
    run: Callable[[Conditions], Sequence[Entry]]
    what: str


def _row(title: str, module: Any) -> Row:
    what = module.__doc__.partition(": ")[2].strip()
    return Row(title, module.run, what[0].upper() + what[1:])


ROWS = {
    "a": _row("Reads of one file", reads),
    "b": _row("Epochs", epochs),
    "c": _row("Many small files", small_files),
    "d": _row("Making bytes and files", generation),
    "e": _row("Object storage", objects),
    "f": _row("The harness's own ceiling", ceiling),
    "g": _row("What grows", growth),
}


def new_document(conditions: Conditions, command: str) -> dict[str, Any]:
    """Return a table without rows."""
    peers = conditions.peers
    facts = {"machine": machine(), "peers": peers.versions, "missing_peers": peers.missing}
    how = {"scale": conditions.scale, "rounds": conditions.rounds, "workers": conditions.workers}
    return {"utc": utc_text(), "command": command, **facts, **how, "rows": {}}


def run_row(letter: str, conditions: Conditions, command: str) -> dict[str, Any]:
    """Run one row; what stops it is told in it, and the other rows go on."""
    row, start = ROWS[letter], time.perf_counter()
    try:
        found = [entry.document() for entry in row.run(conditions)]
        failed = ""
    except (PeerError, StokerError) as error:
        found, failed = [], str(error)
    seconds = time.perf_counter() - start
    head = {"title": row.title, "what": row.what, "command": command, "utc": utc_text(), "rounds": conditions.rounds}
    return {**head, "machine": machine(), "seconds": seconds, "failed": failed, "entries": found}


def kept_rows(before: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of an earlier table, each with the machine it was measured on."""
    return {letter: {"machine": before["machine"], **row} for letter, row in before["rows"].items()}


def elsewhere(document: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the machine of a row as a sentence, nothing where it is the table's own."""
    own = row.get("machine", document["machine"])
    if own == document["machine"]:
        return ""
    return f"Measured on another machine: {', '.join(f'{name} {value}' for name, value in own.items())}."


def page(document: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    peers = ", ".join(f"{name} {value}" for name, value in document["peers"].items()) or "none"
    lines = ["# Stoker beside its peers", "", f"Command: `{document['command']}`, at {document['utc']}.", ""]
    lines += [f"Machine: {facts}.", "", f"Peers: {peers}.", ""]
    lines += [f"- {sentence}" for sentence in document["missing_peers"].values()]
    lines += ["", _HOW, ""]
    lines += ["## Figures to reach", "", goals_markdown(document)]
    for letter, row in document["rows"].items():
        lines += [f"## {letter}. {row['title']}", "", row["what"], ""]
        lines += [f"`{row['command']}`, {row['rounds']} rounds, {row['seconds']:.0f} s, at {row['utc'][:19]}.", ""]
        other = elsewhere(document, row)
        lines += [other, ""] if other else []
        lines += [f"Not measured: {row['failed']}.", ""] if row["failed"] else []
        lines += [markdown(entry) for entry in row["entries"]]
    return "\n".join(lines)


def write(document: dict[str, Any], folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(page(document))
