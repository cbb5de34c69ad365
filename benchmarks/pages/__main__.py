"""`python -m benchmarks.pages`: measure the state bus beside its ceilings, LMDB and SQLite, and judge its figures."""

import argparse
import json
import shlex
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from benchmarks.pages.figures import figures_markdown
from benchmarks.pages.rows import Conditions, row_markdown
from stoker.core.clock import utc_text

PARTS = ("hot", "commits", "history", "weights")
"""Modules with a function `rows(conditions)`. Waves (`benchmarks.pages.propagation`), kills (`benchmarks.pages.soak`),
capture, deltas and devices are measured by commands of their own."""


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller work, fewer samples")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to run, of {','.join(PARTS)}")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="folder in memory")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(words)
    unknown = set(options.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def command_of(options: argparse.Namespace) -> str:
    """Return the command that repeats this."""
    words = ["python", "-m", "benchmarks.pages"] + (["--quick"] if options.quick else [])
    return shlex.join(words + (["--only", options.only] if options.only != ",".join(PARTS) else []))


def measured(part: str, conditions: Conditions) -> list[dict[str, Any]]:
    """Return the rows of a part."""
    return [row.document() for row in import_module(f"benchmarks.pages.{part}").rows(conditions)]


def document_markdown(document: dict[str, Any]) -> str:
    """Return the whole table."""
    facts = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    head = (
        f"## State bus\n\nCommand: `{document['command']}`, {document['utc']}. Machine: {facts}.\n\n"
        "Contenders take turns in one run. Wall and CPU are of one sample; CPU is that of this process, all threads. "
        "Work of one thread is judged by CPU time, disks and memory by wall time.\n"
    )
    return "\n".join([head, figures_markdown(document), *(row_markdown(row) for row in document["rows"])])


def main(words: list[str] | None = None) -> None:
    """Measure, judge, write `pages.json` and `pages.md`."""
    options = parsed(words)
    conditions = Conditions(options.scratch, options.memory, options.quick)
    document: dict[str, Any] = {
        "utc": utc_text(),
        "command": command_of(options),
        "machine": machine(),
        "rows": [],
    }
    for part in options.only.split(","):
        start = time.monotonic()
        document["rows"] += measured(part, conditions)
        print(f"{part}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pages.json").write_text(json.dumps(document, indent=1) + "\n")
    text = document_markdown(document)
    (options.out / "pages.md").write_text(text)
    print(figures_markdown(document))


if __name__ == "__main__":
    main()
