"""Alternates the contenders of a race, keeps every round, and writes tables with medians and spread."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from stoker.core.clock import utc_text
from stoker.core.units import GiB, format_rate
from stoker.kernels.native import kernel_status

PACKAGES = ("stoker", "numpy", "h5py", "msgspec", "pyarrow", "pillow", "obstore")


class PeerError(Exception):
    """A contender could not do its turn; says why in one line."""


@dataclass(frozen=True)
class Turn:
    """What a turn delivered, and the CPU seconds of all processes that took part.

    `wall_seconds` is the contender's own measure where only a part of its time counts; 0: the whole turn does.
    `peak_bytes` is the most memory its processes held, added up; 0: not told.
    """

    payload_bytes: int
    samples: int
    cpu_seconds: float
    wall_seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class Round:
    """One contender's one turn as measured."""

    wall_seconds: float
    cpu_seconds: float
    payload_bytes: int
    samples: int
    peak_bytes: int = 0


@dataclass
class Contender:
    """One way of doing the work; `run` does all of it once. `failed` says why it dropped out, empty while it runs."""

    name: str
    run: Callable[[], Turn]
    rounds: list[Round] = field(default_factory=list)
    failed: str = ""

    def rate(self) -> float:
        """Return the median bytes per second."""
        return statistics.median(entry.payload_bytes / entry.wall_seconds for entry in self.rounds)

    def row(self, ceiling: float) -> str:
        """Return the Markdown row: medians, and the slowest and fastest round."""
        rates = [entry.payload_bytes / entry.wall_seconds for entry in self.rounds]
        samples = statistics.median(entry.samples / entry.wall_seconds for entry in self.rounds)
        cpu = statistics.median(entry.cpu_seconds / (entry.payload_bytes / GiB) for entry in self.rounds)
        spread = f"{format_rate(min(rates))} … {format_rate(max(rates))}"
        share = f"{100 * self.rate() / ceiling:.0f} %"
        return f"| {self.name} | {format_rate(self.rate())} | {spread} | {samples:,.0f} | {cpu:.2f} | {share} |"


def race(contenders: list[Contender], rounds: int, *, warm_rounds: int = 1) -> None:
    """Run every contender `warm_rounds` times unmeasured, then `rounds` times in turn: drift hits all of them alike.

    One that fails drops out with its reason, and the others go on.
    """
    for number in range(-warm_rounds, rounds):
        for contender in contenders:
            if contender.failed:
                continue
            start = time.perf_counter()
            try:
                turn = contender.run()
            except PeerError as error:
                contender.failed = str(error)
                continue
            elapsed = turn.wall_seconds or time.perf_counter() - start
            if number >= 0:
                contender.rounds.append(
                    Round(elapsed, turn.cpu_seconds, turn.payload_bytes, turn.samples, turn.peak_bytes)
                )


def table(title: str, contenders: list[Contender], *, ceiling: str) -> str:
    """Return a Markdown table; the last column holds each contender against the one named `ceiling`."""
    top = next(contender for contender in contenders if contender.name == ceiling).rate()
    head = f"### {title}\n\n| contender | median | spread | samples/s | CPU s per GiB | of the ceiling |\n"
    return head + "|---|---|---|---|---|---|\n" + "\n".join(contender.row(top) for contender in contenders) + "\n"


def machine() -> dict[str, str]:
    """Return what a reader needs to judge the figures."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB
    kernels = kernel_status()
    facts = {"cpu": model, "cpus": str(len(os.sched_getaffinity(0))), "memory": f"{memory:.0f} GiB"}
    facts |= {"kernel": platform.release(), "kernels": f"{kernels.kind} {kernels.cpu_level}".strip()}
    return {**facts, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def save(folder: Path, name: str, command: str, tables: dict[str, list[Contender]], text: str) -> None:
    """Write `NAME.json` with every round and `NAME.md` with the tables, the machine and the command."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {title: {c.name: [asdict(entry) for entry in c.rounds] for c in racers} for title, racers in tables.items()}
    document = {"utc": utc_text(), "command": command, "machine": machine(), "tables": raw}
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    (folder / f"{name}.md").write_text(f"## {name}\n\nCommand: `{command}`. Machine: {facts}.\n\n{text}")
