"""The figures to reach, each judged from a saved table alone: reached, not reached, or not measured and why."""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.contest import of_ours
from stoker.core.units import GiB, MiB

Found = tuple[float, str]
"""A value and where in the table it was found."""


class Missing(Exception):
    """The table does not hold what a goal needs."""


class Goal(NamedTuple):
    """`measure` finds the worst value in the table; it must be at least (or, with `most`, at most) `limit`."""

    text: str
    limit: float
    measure: Callable[[dict[str, Any]], Found]
    most: bool = False


class Judged(NamedTuple):
    """What became of a goal: `status` is `reached`, `not reached` or `not measured`."""

    text: str
    status: str
    told: str


def entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all contests and series of a table."""
    return [entry for row in document["rows"].values() for entry in row["entries"]]


def ratios(start: str, peer: str, measure: str, *, only: str = "", least: bool = True) -> Callable[..., Found]:
    """Return a finder of the worst median ratio of ours to `peer`, in the contests whose key begins with `start`."""

    def find(document: dict[str, Any]) -> Found:
        named = [entry for entry in entries(document) if entry["key"].startswith(start) and only in entry["key"]]
        if not named:
            raise Missing(f"no row {start}")
        for entry in named:
            for name, why in entry["missing"].items():
                if name.startswith("stoker"):
                    raise Missing(f"{entry['key']}: {why}")
        found = [
            (item[measure]["median"], f"{entry['key']} against {item['to']}")
            for entry in named
            for item in of_ours(entry)
            if item["to"].startswith(peer) and measure in item
        ]
        if not found:
            raise Missing(_reason(named, peer))
        return min(found) if least else max(found)

    return find


def _reason(named: list[dict[str, Any]], peer: str) -> str:
    for entry in named:
        for name, why in entry["missing"].items():
            if name.startswith(peer) or peer in name:
                return str(why)
    return f"{peer} took no part"


def ours(key: str, measure: str) -> Callable[..., Found]:
    """Return a finder of our own median in a contest."""

    def find(document: dict[str, Any]) -> Found:
        for entry in entries(document):
            if entry["key"] == key:
                mine = [one for one in entry.get("contenders", ()) if one["name"].startswith("stoker")]
                if not mine:
                    raise Missing(_reason([entry], "stoker"))
                return mine[0][measure]["median"], key
        raise Missing(f"no row {key}")

    return find


def cell(key: str, label: str, column: str) -> Callable[..., Found]:
    """Return a finder of a median in a series."""

    def find(document: dict[str, Any]) -> Found:
        for entry in entries(document):
            for row in entry.get("rows", ()) if entry["key"] == key else ():
                if row["label"] == label:
                    return row[column]["median"], f"{key}, {label}"
        raise Missing(f"no row {key}")

    return find


def large_blocks(measure: str, *, source: str, least: bool = True) -> Callable[..., Found]:
    """Return a finder of the worst ratio to fio over the blocks of 128 KiB and more."""

    def find(document: dict[str, Any]) -> Found:
        sizes = ("/128 KiB/", "/1 MiB/", "/140 MiB/")
        found, reasons = [], []
        for size in sizes:
            try:
                found.append(ratios(f"reads/{source}", "fio io_uring", measure, only=size, least=least)(document))
            except Missing as error:
                if not str(error).startswith("no row"):  # a size that failed is not one that was left out
                    raise
                reasons.append(str(error))
        if not found:
            raise Missing(reasons[0])
        return min(found) if least else max(found)

    return find


PLAN = "growth/plan 10,000,000 samples over 1,024 ranks"
RATE, PER_CPU = "bytes_per_second", "samples_per_cpu_second"
FIO = "fio io_uring"

GOALS = (
    Goal("O_DIRECT reads of 128 KiB and more: at least 95 % of fio's rate", 0.95, large_blocks(RATE, source="direct")),
    Goal("cached reads of 128 KiB and more: at least 95 % of fio's rate", 0.95, large_blocks(RATE, source="cached")),
    Goal("reads: at most 1.5 times fio's CPU", 1.5, ratios("reads", FIO, "cpu_seconds_per_gib", least=False), True),
    Goal(
        "cached random 4 KiB reads: at least 70 % of fio's rate",
        0.70,
        ratios("reads/cached/random/4 KiB", FIO, "samples_per_second"),
    ),
    Goal("unet3d epoch: at least 10 times DLIO's samples a CPU second", 10.0, ratios("epochs/unet3d", "DLIO", PER_CPU)),
    Goal(
        "unet3d epoch: at least 2 times s3dlio get_many's samples a CPU second",
        2.0,
        ratios("epochs/unet3d", "s3dlio get_many", PER_CPU),
    ),
    Goal(
        "small files: at least 5 times the rate of DataLoader with np.load",
        5.0,
        ratios("small files", "PyTorch DataLoader", RATE),
    ),
    Goal("fill: at least half of memcpy", 0.5, ratios("generation/fill", "memcpy", RATE)),
    Goal("fill: at least dgen-py", 1.0, ratios("generation/fill", "dgen-py", RATE)),
    Goal("plan for all 1,024 ranks: below 1 s", 1.0, cell(PLAN, "all 1,024", "seconds"), True),
    Goal("plan for all 1,024 ranks: below 256 MiB", 256 * MiB, cell(PLAN, "all 1,024", "peak_bytes"), True),
    Goal("null storage, 1 MiB samples: at least 20 GiB/s", 20 * GiB, ours("null/1 MiB samples", RATE)),
    Goal(
        "null storage, 4 KiB samples: at least 500,000 samples/s",
        500_000,
        ours("null/4 KiB samples", "samples_per_second"),
    ),
)


def judge(goal: Goal, document: dict[str, Any]) -> Judged:
    """Return what became of a goal in a table."""
    try:
        value, where = goal.measure(document)
    except Missing as error:
        return Judged(goal.text, "not measured", str(error))
    reached = value <= goal.limit if goal.most else value >= goal.limit
    return Judged(goal.text, "reached" if reached else "not reached", f"{_number(value)} ({where})")


def _number(value: float) -> str:
    if value >= 64 * MiB:
        return f"{value / GiB:.3g} GiB" if value >= GiB else f"{value / MiB:.0f} MiB"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def goals_markdown(document: dict[str, Any]) -> str:
    """Return all goals as a Markdown table."""
    lines = ["| figure to reach | | worst median, and where |", "|---|---|---|"]
    lines += [f"| {text} | {status} | {told} |" for text, status, told in (judge(goal, document) for goal in GOALS)]
    return "\n".join(lines) + "\n"
