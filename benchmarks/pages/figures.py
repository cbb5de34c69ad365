"""The figures of the state bus to reach, each judged from a saved table alone."""

from collections.abc import Callable
from typing import Any

from benchmarks.goals import Found, Goal, Missing, judge
from benchmarks.pages.rows import median

Document = dict[str, Any]


def value(key: str, name: str, clock: str) -> Callable[[Document], Found]:
    """Return a finder of a contender's median."""

    def find(document: Document) -> Found:
        for row in document["rows"]:
            if row["key"] == key and name in row["missing"]:
                raise Missing(row["missing"][name])
        try:
            return median(document, key, name, clock), f"{key}, {clock}"
        except KeyError as error:
            raise Missing(f"no row {error.args[0]}") from error

    return find


def ratio(key: str, name: str, other: str, clock: str) -> Callable[[Document], Found]:
    """Return a finder of the ratio of two medians of a row."""

    def find(document: Document) -> Found:
        found, where = value(key, name, clock)(document)
        against, _ = value(key, other, clock)(document)
        return found / against, f"{where}, against {other}"

    return find


GROUP = "commits/group 512"
SINGLE = "write and fdatasync, one record"
GOALS = (
    Goal(
        "allocate and free, from Python: below 250 ns",
        250,
        value("hot/allocation", "stoker allocate_id + free_id", "cpu"),
        True,
    ),
    Goal(
        "update of 4 KiB, 1 % changed, log frame and CRC: below 1,000 ns",
        1000,
        value("hot/update", "stoker write, array", "cpu"),
        True,
    ),
    Goal(
        "update_many, 64 pages: below 300 ns a page",
        300,
        value("hot/update_many 64", "stoker update_many", "cpu"),
        True,
    ),
    Goal(
        "update_many, 1,024 pages: below 300 ns a page",
        300,
        value("hot/update_many 1024", "stoker update_many", "cpu"),
        True,
    ),
    Goal(
        "compare and compact from memory, nothing changed: 0.7 of memcpy",
        0.7,
        ratio("hot/compare 0", "stoker compare and compact", "memcpy", "cpu"),
    ),
    Goal(
        "compare and compact from memory, 1 % changed: 0.7 of memcpy",
        0.7,
        ratio("hot/compare 0.01", "stoker compare and compact", "memcpy", "cpu"),
    ),
    *(
        Goal(
            f"checkpoint in memory, {label} pages: more than 1 GB/s",
            1.0,
            value(f"checkpoint memory {size}", "stoker checkpoint", "wall"),
        )
        for label, size in (("4 KiB", 4096), ("64 KiB", 65536), ("4 MiB", 4 << 20))
    ),
    *(
        Goal(
            f"checkpoint read in memory, {label} pages: more than 1 GB/s",
            1.0,
            value(f"restore memory {size}", "stoker read_checkpoint", "wall"),
        )
        for label, size in (("4 KiB", 4096), ("64 KiB", 65536), ("4 MiB", 4 << 20))
    ),
    Goal("replay in memory: more than 1 GB/s of page bytes", 1.0, value("replay", "stoker replay", "wall")),
    Goal(
        "checkpoint on disk: 0.9 of a plain write",
        0.9,
        ratio("checkpoint disk 65536", "stoker checkpoint", "plain write and fdatasync", "wall"),
    ),
    Goal(
        "checkpoint read from disk: 0.9 of a plain read",
        0.9,
        ratio("restore disk 65536", "stoker read_checkpoint", "plain read", "wall"),
    ),
    Goal("durable commits in groups of 512: 100 times one sync each", 100, ratio(GROUP, "stoker", SINGLE, "wall")),
    Goal("durable commits in groups of 512: at least LMDB", 1.0, ratio(GROUP, "stoker", "LMDB", "wall")),
    Goal(
        "durable commits in groups of 512: at least SQLite",
        1.0,
        ratio(GROUP, "stoker", "SQLite WAL, synchronous=FULL", "wall"),
    ),
    Goal("a commit that waits for nothing: below 1 us, from Python", 1e6, value("commits/unsynced", "stoker", "cpu")),
    Goal(
        "weights at 1e-6: 100 times smaller than whole", 100, value("weights/size 1e-06", "stoker wire codec", "wall")
    ),
    Goal(
        "weights at 1e-6: 3 times smaller than index and value",
        3,
        value("weights/size 1e-06", "wire codec against index and value", "wall"),
    ),
)
ORIGINAL = (
    Goal("allocation: below 1 us", 1000, value("hot/allocation", "stoker allocate_id + free_id", "wall"), True),
    Goal("sparse delta: below 50 us", 50_000, value("hot/update", "stoker write, array", "wall"), True),
    Goal("checkpoint: more than 0.1 GB/s", 0.1, value("checkpoint memory 4096", "stoker checkpoint", "wall")),
    Goal("replay: more than 1 GB/s", 1.0, value("replay", "stoker replay", "wall")),
)
"""What the original set itself, of what is measured here (state bus note, 1.20)."""


def figures_markdown(document: Document) -> str:
    """Return what became of all figures."""
    parts = []
    for title, goals in (("Figures to reach", GOALS), ("Targets of the original", ORIGINAL)):
        lines = [f"### {title}\n", "| figure | | found | of the figure |", "|---|---|---|---|"]
        for goal in goals:
            text, status, told = judge(goal, document)
            share = ""
            if status != "not measured":
                found = goal.measure(document)[0]
                share = f"{(goal.limit / found if goal.most else found / goal.limit):.2f}"
            lines.append(f"| {text} | {status} | {told} | {share} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
