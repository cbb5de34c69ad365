"""`python -m benchmarks.fsmeta`: the file system's metadata beside bare SQLite and LMDB that write the same keys.

How many files are created durably in a second, by the size of the group that shares a commit, and by many threads that
each create one file at a time? How many names are looked up, attributes read, entries listed? The ceiling of creating
is the same engine without us: the very pairs that a round of creates wrote, in as many transactions, as synchronously.
Contenders take turns; rates are medians of the rounds.
"""

import argparse
import json
import os
import shlex
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.harness import machine
from stoker.core.clock import utc_text
from stoker.fs.meta import Call, Volume
from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import Create, GetAttr, Lookup, Mkdir, ReadDir
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.kv import Change

GROUPS = (1, 64, 512)
THREADS = 64
ENGINES = ("sqlite", "lmdb")
GOAL_CREATES_PER_SECOND = 10_000

Rates = dict[str, list[float]]


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fsmeta", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, 3 rounds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds, instead of 5")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


@contextmanager
def volume_in(folder: Path, engine: str) -> Iterator[Volume]:
    """Give an empty durable volume."""
    with Volume.format(f"{engine}://{folder}/volume.{engine}") as volume:
        yield volume


def timed(count: int, work: Callable[[], object]) -> float:
    """Return how many of `count` things are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def create_in_groups(volume: Volume, count: int, group: int) -> float:
    """Return creates a second of one caller that hands over `group` at a time."""
    folder = volume.run(Mkdir(ROOT, b"group-%d" % group, 0o755)).ino
    calls = [Call(Create(folder, b"file-%08d" % number, 0o644, exclusive=True)) for number in range(count)]

    def work() -> None:
        for start in range(0, count, group):
            answers = volume.submit(calls[start : start + group])
            assert all(isinstance(answer, Entry) for answer in answers)

    return timed(count, work)


def create_by_threads(volume: Volume, count: int) -> float:
    """Return creates a second of many threads that each wait for their own file."""
    folder = volume.run(Mkdir(ROOT, b"threads", 0o755)).ino

    def client(number: int) -> None:
        for step in range(count // THREADS):
            volume.run(Create(folder, b"file-%d-%d" % (number, step), 0o644, exclusive=True))

    with ThreadPoolExecutor(THREADS) as pool:
        return timed(count // THREADS * THREADS, lambda: list(pool.map(client, range(THREADS))))


def bare_sqlite(folder: Path, changes: list[Change]) -> float:
    """Return transactions' worth of changes a second through SQLite alone, as synchronous as ours."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        connection.execute("CREATE TABLE pairs (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")

        def work() -> None:
            for change in changes:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO pairs VALUES (?,?)", change.writes)
                connection.execute("COMMIT")

        return timed(1, work)


def bare_lmdb(folder: Path, changes: list[Change]) -> float:
    """Return the same through LMDB alone."""
    with lmdb.open(str(folder / "bare"), map_size=1 << 32) as env:

        def work() -> None:
            for change in changes:
                with env.begin(write=True) as txn:
                    for key, value in change.writes:
                        txn.put(key, value)

        return timed(1, work)


BARE = {"sqlite": bare_sqlite, "lmdb": bare_lmdb}


def measure_creates(scratch: Path, engine: str, group: int, count: int, rates: Rates) -> None:
    """Measure one size of group, ours and the ceiling, in folders of their own."""
    with tempfile.TemporaryDirectory(dir=scratch) as name, volume_in(Path(name), engine) as volume:
        before = volume.engine.revision()
        rate = create_in_groups(volume, count, group)
        rates.setdefault(f"{engine}: creates in groups of {group}", []).append(rate)
        changes = volume.engine.changes(before + 1, count)
        # The history keeps the newest 16 MiB: what it no longer has would be missing from the ceiling.
        assert sum(len(change.writes) for change in changes) >= count
        bare = BARE[engine](Path(name), changes) * count
        rates.setdefault(f"{engine}: the same keys, bare, in groups of {group}", []).append(bare)


def measure_reads(volume: Volume, engine: str, count: int, rates: Rates) -> None:
    """Measure lookups, attributes and listings of one caller."""
    folder = volume.run(Lookup(ROOT, b"group-512")).ino
    names = [entry.name for entry in volume.run(ReadDir(folder, limit=10_000)).entries]
    inodes = [entry.ino for entry in volume.run(ReadDir(folder, limit=10_000)).entries]
    count = min(count, len(names))
    batch = [Call(Lookup(folder, name)) for name in names[:count]]

    def listed() -> None:
        after, more = b"", True
        while more:
            listing = volume.run(ReadDir(folder, after, 1000, plus=True))
            after, more = listing.entries[-1].name, listing.more

    for what, amount, work in (
        ("lookups, one at a time", count, lambda: [volume.run(Lookup(folder, name)) for name in names[:count]]),
        ("getattrs, one at a time", count, lambda: [volume.run(GetAttr(ino)) for ino in inodes[:count]]),
        ("lookups, 100 at a time", count, lambda: [volume.submit(batch[n : n + 100]) for n in range(0, count, 100)]),
        ("readdirplus entries", len(names), listed),
    ):
        rates.setdefault(f"{engine}: {what}", []).append(timed(amount, work))


def sync_seconds(scratch: Path) -> float:
    """Return what one fdatasync of a page costs here, the median of twenty: what bounds every durable commit."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        taken = []
        for _ in range(20):
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def one_round(scratch: Path, count: int, rates: Rates) -> None:
    """Let every contender take its turn once."""
    for engine in ENGINES:
        for group in GROUPS:
            measure_creates(scratch, engine, group, max(count * group // 512, min(count, 200)), rates)
        with tempfile.TemporaryDirectory(dir=scratch) as name, volume_in(Path(name), engine) as volume:
            rate = create_by_threads(volume, count // 2)
            rates.setdefault(f"{engine}: creates by {THREADS} threads", []).append(rate)
            create_in_groups(volume, count, 512)
            measure_reads(volume, engine, count, rates)


def document_of(rates: Rates, command: str, syncs: list[float]) -> dict[str, Any]:
    """Return the result as it is saved; `syncs` are the seconds of an fdatasync before each round."""
    rows = [
        {"what": what, "per_second": statistics.median(each), "low": min(each), "high": max(each)}
        for what, each in rates.items()
    ]
    best = max(row["per_second"] for row in rows if "creates" in row["what"])
    goal = {"creates_per_second": GOAL_CREATES_PER_SECOND, "reached": best > GOAL_CREATES_PER_SECOND}
    facts = {"sync_seconds": statistics.median(syncs), "load_average": os.getloadavg()[1]}
    return {"utc": utc_text(), "command": command, "machine": machine(), **facts, "rows": rows, "goal": goal}


def markdown(document: dict[str, Any]) -> str:
    """Return the table for people."""
    facts = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    lines = [
        "## File system: metadata",
        f"\nCommand: `{document['command']}`, {document['utc']}. Machine: {facts}.",
        f"Durable: every commit waits for the disk, one fdatasync takes {document['sync_seconds'] * 1000:.1f} ms.",
        f"Load average {document['load_average']:.1f}. Medians of the rounds, contenders in turns.\n",
        "| what | a second | low | high |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['what']} | {row['per_second']:,.0f} | {row['low']:,.0f} | {row['high']:,.0f} |"
        for row in document["rows"]
    ]
    told = "reached" if document["goal"]["reached"] else "not reached in this run"
    return "\n".join([*lines, f"\nGoal: more than {GOAL_CREATES_PER_SECOND:,} durable creates a second: {told}.\n"])


def main(words: list[str] | None = None) -> None:
    """Measure, write `fsmeta.json` and `fsmeta.md`, print the table."""
    options = parsed(words)
    count = 2000 if options.quick else 20_000
    rounds = options.rounds or (3 if options.quick else 5)
    rates: Rates = {}
    syncs = []
    for number in range(rounds):
        syncs.append(sync_seconds(options.scratch))
        start = time.monotonic()
        one_round(options.scratch, count, rates)
        print(f"round {number + 1} of {rounds}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    given = [*(["--quick"] if options.quick else []), *(["--rounds", str(rounds)] if options.rounds else [])]
    document = document_of(rates, shlex.join(["python", "-m", "benchmarks.fsmeta", *given]), syncs)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fsmeta.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "fsmeta.md").write_text(markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
