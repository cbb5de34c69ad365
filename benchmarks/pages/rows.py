"""What every row of the table is made of: contenders measured in turn, their samples kept, judged from those alone."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Sample = tuple[float, float]
"""Wall and CPU of one sample, in the unit of its row."""


@dataclass(frozen=True)
class Conditions:
    """`scratch` is a folder on a disk, `memory` one in RAM; `quick` asks for smaller work and fewer samples."""

    scratch: Path
    memory: Path
    quick: bool = False

    def choose(self, quick: int, usual: int) -> int:
        """Return the number for this scale."""
        return quick if self.quick else usual

    @contextmanager
    def folder(self, *, memory: bool = False) -> Iterator[Path]:
        """Make a folder that is removed at the end."""
        path = Path(tempfile.mkdtemp(dir=self.memory if memory else self.scratch, prefix="stoker-bench-"))
        try:
            yield path
        finally:
            shutil.rmtree(path)


@dataclass
class Row:
    """One work, done by several contenders. `unit` is `ns`, `us`, `ms`, `s` (less is better), `GB/s`, `1/s`, `times`.

    facts  numbers beside the samples, such as bytes; missing  contenders that could not take part, and why
    """

    key: str
    title: str
    unit: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return what the table keeps."""
        kept = {name: {"wall": [w for w, _ in s], "cpu": [c for _, c in s]} for name, s in self.samples.items()}
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "contenders": kept,
            "facts": self.facts,
            "missing": self.missing,
        }


def clocks() -> tuple[int, int]:
    """Return wall and CPU nanoseconds of the process, all threads."""
    return time.perf_counter_ns(), time.process_time_ns()


def per_op(work: Callable[[], object], operations: int) -> Callable[[], Sample]:
    """Return a sampler of nanoseconds an operation."""

    def sample() -> Sample:
        wall, cpu = clocks()
        work()
        wall_end, cpu_end = clocks()
        return (wall_end - wall) / operations, (cpu_end - cpu) / operations

    return sample


def per_second(work: Callable[[], object], amount: float) -> Callable[[], Sample]:
    """Return a sampler of how much is done in a second: `amount` by each call."""
    timed = per_op(work, 1)

    def sample() -> Sample:
        wall, cpu = timed()
        return amount * 1e9 / wall, amount * 1e9 / max(cpu, 1.0)

    return sample


def gigabytes(work: Callable[[], object], size_bytes: int) -> Callable[[], Sample]:
    """Return a sampler of GB (1e9 bytes) a second."""
    return per_second(work, size_bytes / 1e9)


def contest(row: Row, contenders: dict[str, Callable[[], Sample]], rounds: int, *, warm: int = 1) -> Row:
    """Sample all contenders in turn, so that drift hits them alike; the first `warm` rounds do not count."""
    for number in range(-warm, rounds):
        for name, sampler in contenders.items():
            found = sampler()
            if number >= 0:
                row.samples.setdefault(name, []).append(found)
    return row


def median(document: dict[str, Any], key: str, name: str, clock: str) -> float:
    """Return a contender's median in a saved table. Raises KeyError where it took no part."""
    for row in document["rows"]:
        if row["key"] == key:
            return statistics.median(row["contenders"][name][clock])
    raise KeyError(key)


def row_markdown(row: dict[str, Any]) -> str:
    """Return a row of the table as Markdown: medians, quartiles and extremes of wall and CPU."""
    unit = row["unit"]
    lines = [f"### {row['title']}\n", f"| contender | samples | wall {unit} | middle half | all | CPU {unit} |"]
    lines.append("|---|---|---|---|---|---|")
    for name, clocks_of in row["contenders"].items():
        wall = sorted(clocks_of["wall"])
        quarters = statistics.quantiles(wall, n=4) if len(wall) > 1 else [wall[0]] * 3
        lines.append(
            f"| {name} | {len(wall)} | {number(quarters[1])} | {number(quarters[0])} … {number(quarters[2])} "
            f"| {number(wall[0])} … {number(wall[-1])} | {number(statistics.median(clocks_of['cpu']))} |"
        )
    lines += [f"| {name} | | {why} | | | |" for name, why in row["missing"].items()]
    facts = ", ".join(f"{name} {number(value)}" for name, value in row["facts"].items())
    return "\n".join(lines) + (f"\n\n{facts}.\n" if facts else "\n")


def number(value: float) -> str:
    """Return a number as short as it says enough."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
