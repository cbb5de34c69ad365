"""Durable commits: groups of small records, beside LMDB and SQLite in WAL mode, in the same folder.

A group is 512 records of 300 bytes, each a commit of its own with the store, then one sync (`write_each`); the peers
put the group into one transaction, which is the fastest that they offer for the same promise: nothing of it is lost
once it returns.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from benchmarks.pages.rows import Conditions, Row, Sample, contest, per_second
from stoker.core.units import MiB
from stoker.pages import Store

RECORD = 300
RECORDS = 4096
FRAME = 360
"""Bytes of a record's frame in the log: its header of 56, and padding."""
GROUPS = (1, 512)


def records(count: int) -> list[bytes]:
    """Return different records."""
    data = np.random.default_rng(2).integers(0, 256, (count, RECORD), np.uint8)
    return [row.tobytes() for row in data]


Asked = list[tuple[int, bytes]]
Form = TypeVar("Form")


class Turns(Generic[Form]):
    """Which records a group writes, and what: different ones each time, made before the clock runs.

    form  makes of numbers of records, and what they become, what a contender takes
    """

    def __init__(self, group: int, form: Callable[[Asked], Form]) -> None:
        data = records(1021)
        # Each record comes six times, never twice with the same data, and then all of it again.
        asked = [(at * 7 % RECORDS, data[at % len(data)]) for at in range(6 * RECORDS)]
        self._groups = [form(asked[start : start + group]) for start in range(0, len(asked), group)]
        self._next = 0

    def __call__(self) -> Form:
        """Return the next group."""
        self._next += 1
        return self._groups[self._next % len(self._groups)]


def stoker_group(store: Store, pages: list[int], group: int) -> Callable[[], None]:
    """Return the store's group."""
    ids = np.array(pages, np.uint64)
    turns = Turns(group, lambda asked: (ids[[number for number, _ in asked]], [data for _, data in asked]))

    def work() -> None:
        numbers, data = turns()
        store.write_each(numbers, data, durability="data")

    return work


def lmdb_group(folder: Path, group: int) -> Callable[[], None]:
    """Return LMDB's group. Raises ImportError without it."""
    import lmdb

    turns = Turns(group, lambda asked: [(number.to_bytes(8, "big"), data) for number, data in asked])
    environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 30)

    def work() -> None:
        with environment.begin(write=True) as transaction:
            for key, data in turns():
                transaction.put(key, data)

    return work


def sqlite_group(folder: Path, group: int) -> Callable[[], None]:
    """Return SQLite's group, in WAL mode with a full sync."""
    turns = Turns(group, lambda asked: asked)
    base = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, data BLOB)")

    def work() -> None:
        base.execute("BEGIN")
        base.executemany("INSERT OR REPLACE INTO record VALUES (?, ?)", turns())
        base.execute("COMMIT")

    return work


def sync_single(folder: Path) -> Callable[[], None]:
    """Return one record appended to a preallocated file and synced."""
    handle = os.open(folder / "single", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(handle, 0, 64 * MiB)
    offset = 0
    data = bytes(range(256)) + bytes(RECORD - 256)

    def work() -> None:
        nonlocal offset
        os.pwrite(handle, data, offset)
        os.fdatasync(handle)
        offset = (offset + RECORD) % (60 * MiB)

    return work


def sync_at_once(folder: Path, group: int) -> Callable[[], None]:
    """Return the bytes of a group's frames written in one piece and synced: no log does less."""
    handle = os.open(folder / "at-once", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(handle, 0, 64 * MiB)
    offset = 0
    data = bytes(FRAME * group)

    def work() -> None:
        nonlocal offset
        os.pwrite(handle, data, offset)
        os.fdatasync(handle)
        offset = (offset + len(data)) % (60 * MiB)

    return work


def contenders(folder: Path, store: Store, group: int) -> tuple[dict[str, Callable[[], Sample]], dict[str, str]]:
    """Return those who take part, and why others do not."""
    pages = [int(page) for page in store.allocate_many([RECORD] * RECORDS)]
    store.sync()
    own = folder / str(group)
    own.mkdir()
    ways = {
        "write and fdatasync, one record": per_second(sync_single(own), 1),
        "the frames of a group written at once and synced": per_second(sync_at_once(own, group), group),
        "stoker": per_second(stoker_group(store, pages, group), group),
        "SQLite WAL, synchronous=FULL": per_second(sqlite_group(own, group), group),
    }
    try:
        ways["LMDB"] = per_second(lmdb_group(own, group), group)
    except ImportError:
        return ways, {"LMDB": "not installed: pip install lmdb"}
    return ways, {}


def groups(conditions: Conditions, folder: Path) -> list[Row]:
    """Measure groups of one and of 512."""
    made = []
    for group in GROUPS:
        with Store.open(folder / f"store-{group}", durability="none", log_bytes=64 * MiB) as store:
            title = f"Durable commits a second, {group} records of 300 bytes a sync, 4,096 records, on disk"
            row = Row(f"commits/group {group}", title, "1/s")
            ways, row.missing = contenders(folder, store, group)
            made.append(contest(row, ways, conditions.choose(15, 41), warm=3))
            commits = store.counters()
            row.facts = {"commits a sync": commits["commits"] / max(1, commits["syncs"])}
    return made


def unsynced(conditions: Conditions, folder: Path) -> Row:
    """Measure what a small commit costs a store with a folder when nobody waits for the disk."""
    operations = conditions.choose(2000, 10_000)
    texts = records(2)
    with Store.open(folder / "unsynced", durability="none", log_bytes=64 * MiB) as store:
        page = store.allocate(RECORD).id

        def work() -> None:
            for turn in range(operations):
                store.write(page, texts[turn & 1])

        row = Row("commits/unsynced", "A commit of 300 bytes that waits for nothing, a store with a folder", "1/s")
        return contest(row, {"stoker": per_second(work, operations)}, 31)


def latency(conditions: Conditions, folder: Path) -> Row:
    """Measure each of many durable commits by itself."""
    count = conditions.choose(200, 1000)
    row = Row("commits/latency", "A durable commit of 300 bytes by itself, on disk: latency", "us")
    with Store.open(folder / "latency") as store:
        page, data = store.allocate(RECORD).id, records(2)
        single = sync_single(folder)
        for turn in range(count):
            for name, work in (
                ("stoker", lambda turn=turn: store.write(page, data[turn & 1])),
                ("write and fdatasync", single),
            ):
                wall, cpu = time.perf_counter_ns(), time.process_time_ns()
                work()
                found = (time.perf_counter_ns() - wall) / 1e3, (time.process_time_ns() - cpu) / 1e3
                row.samples.setdefault(name, []).append(found)
    for name, samples in row.samples.items():
        wall_us = sorted(sample[0] for sample in samples)
        for share, label in ((0.5, "median"), (0.99, "p99"), (0.999, "p99.9")):
            row.facts[f"{name} {label}"] = wall_us[min(len(wall_us) - 1, int(share * len(wall_us)))]
    return row


def rows(conditions: Conditions) -> list[Row]:
    """Measure all of them."""
    with conditions.folder() as folder:
        return [*groups(conditions, folder), unsynced(conditions, folder), latency(conditions, folder)]
