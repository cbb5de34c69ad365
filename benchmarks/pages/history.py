"""Checkpoints, replay and recovery: in memory against 1 GB/s, on a disk against what the disk does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.pages.rows import Conditions, Row, Sample, contest, gigabytes
from stoker.core.units import KiB, MiB, format_bytes
from stoker.pages import Store
from stoker.pages.history import State, latest_valid, replay_tables
from stoker.pages.journal import scan_tables

PAGE_SIZES = (4 * KiB, 64 * KiB, 4 * MiB)
PIECE = 4 * MiB
# Writes a log of so many bytes, tells the LSN, and waits to be killed.
WRITER = """
import sys, time
import numpy as np
from stoker.pages import Store
folder, size, pages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store.open(folder, size_bytes=4 * 4096 * pages, pages_max=2 * pages, log_bytes=64 << 20, durability="none")
ids = store.allocate_many([4096] * pages)
chance = np.random.default_rng(1)
rows = chance.integers(0, 256, (pages, 4096), np.uint8)
store.update_many(ids, rows)
other = rows.copy()
other[chance.random(rows.shape, np.float32) < 0.01] ^= 1
while store.counters()["delta_bytes"] < size:
    rows, other = other, rows
    for start in range(0, pages, 512):
        store.update_many(ids[start : start + 512], rows[start : start + 512])
store.sync("data")
print(store.lsn, flush=True)
time.sleep(600)
"""


def random_store(folder: Path, page_bytes: int, total_bytes: int) -> Store:
    """Make a store of pages of bytes that do not shrink."""
    count = total_bytes // page_bytes
    store = Store.open(folder, size_bytes=2 * total_bytes, pages_max=count + 64, durability="none", log_bytes=64 * MiB)
    ids = store.allocate_many([page_bytes] * count)
    chance = np.random.default_rng(1)
    at_once = max(1, 8 * MiB // page_bytes)
    for start in range(0, count, at_once):
        part = ids[start : start + at_once]
        store.update_many(part, chance.integers(0, 256, (len(part), page_bytes), np.uint8))
    return store


def written(path: Path, data: memoryview) -> Callable[[], None]:
    """Return a plain write of these bytes to a new file, synced."""

    def work() -> None:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        for start in range(0, len(data), PIECE):
            os.pwrite(handle, data[start : start + PIECE], start)
        os.fdatasync(handle)
        os.close(handle)

    return work


def read_back(path: Path) -> Callable[[], None]:
    """Return a plain read of a whole file."""
    room = bytearray(PIECE)

    def work() -> None:
        with path.open("rb", buffering=0) as file:
            while file.readinto(room):
                pass

    return work


def uncached(path: Path, sampler: Callable[[], Sample]) -> Callable[[], Sample]:
    """Return a sampler that drops a folder's files from the page cache first, so that the disk is read."""

    def sample() -> Sample:
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                handle = os.open(file, os.O_RDONLY)
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)
        return sampler()

    return sample


def checkpoints(conditions: Conditions, *, memory: bool) -> list[Row]:
    """Measure checkpoints written and read, of pages of several sizes, beside plain writes and reads of the bytes."""
    total = conditions.choose(64, 256) * MiB
    rows, where = [], "memory" if memory else "disk"
    for page_bytes in PAGE_SIZES if memory else PAGE_SIZES[1:2]:
        with conditions.folder(memory=memory) as folder, random_store(folder / "bus", page_bytes, total) as store:
            plain = np.random.default_rng(2).integers(0, 256, total, np.uint8).data
            title = f"{format_bytes(total)} in pages of {format_bytes(page_bytes)}, {where}"
            store.checkpoint(codec="auto", keep=1)
            ways = {
                "plain write and fdatasync": gigabytes(written(folder / "plain", plain), total),
                "stoker checkpoint": gigabytes(lambda store=store: store.checkpoint(keep=1), total),
            }
            rows.append(contest(Row(f"checkpoint {where} {page_bytes}", f"Checkpoint of {title}", "GB/s"), ways, 7))
            assert store.folder is not None
            own = store.folder.checkpoints
            readers = {
                "plain read": gigabytes(read_back(folder / "plain"), total),
                "stoker read_checkpoint": gigabytes(lambda own=own: latest_valid(own), total),
            }
            if not memory:
                places = {"plain read": folder / "plain", "stoker read_checkpoint": own}
                readers = {name: uncached(places[name], sampler) for name, sampler in readers.items()}
            title = f"Checkpoint read, checked and made pages again: {title}"
            rows.append(contest(Row(f"restore {where} {page_bytes}", title, "GB/s"), readers, 7))
    return rows


def replays(conditions: Conditions) -> Row:
    """Measure replay of a log in memory: of all pages, 1 % of the bytes changed, several times over."""
    count, times = conditions.choose(1024, 4096), 16
    with conditions.folder(memory=True) as folder:
        store = random_store(folder / "bus", 4 * KiB, count * 4 * KiB)
        ids = [page.id for page in store.pages()]
        chance, data = np.random.default_rng(3), np.stack([store.read(page) for page in ids])
        other = data.copy()
        other[chance.random(data.shape, np.float32) < 0.01] ^= 1
        for _ in range(times):
            data, other = other, data
            for start in range(0, count, 512):
                store.update_many(ids[start : start + 512], data[start : start + 512])
        store.sync("os")
        assert store.folder is not None
        log = store.folder.log
        row = Row(
            "replay",
            f"Replay of {times} updates of {count:,} pages of 4 KiB, 1 % of the bytes each: page bytes a second",
            "GB/s",
            facts={"log bytes": sum(file.stat().st_size for file in log.glob("*.stk"))},
        )
        page_bytes = count * 4 * KiB * (times + 1)
        work = gigabytes(lambda: replay_tables(State(), scan_tables(log)), page_bytes)
        contest(row, {"stoker replay": work}, 7)
        store.close()
    return row


def recovery(conditions: Conditions) -> Row:
    """Measure opening a store whose only process was killed: with its shared memory there, and from the log alone."""
    size = conditions.choose(64, 1024) * MiB
    row = Row(
        "recovery",
        f"Opening after a kill, a log of {format_bytes(size)} of deltas of 4,096 pages of 4 KiB, on disk",
        "s",
    )
    with conditions.folder() as folder:
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder / "bus"), str(size), "4096"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = int(child.stdout.readline() or 0)
        child.send_signal(signal.SIGKILL)
        child.wait()
        row.facts["log bytes"] = sum(file.stat().st_size for file in (folder / "bus" / "log").glob("*.stk"))
        # The last to close a store removes its shared memory: the second opening has the log alone.
        for name in ("shared memory is there", "shared memory is gone, log alone"):
            start, cpu = time.perf_counter(), time.process_time()
            store = Store.open(folder / "bus")
            row.samples[name] = [(time.perf_counter() - start, time.process_time() - cpu)]
            if store.lsn < told:
                row.missing[name] = f"lost commits: LSN {store.lsn} of {told}"
            store.close()
    return row


def rows(conditions: Conditions) -> list[Row]:
    """Measure all of them."""
    return [
        *checkpoints(conditions, memory=True),
        *checkpoints(conditions, memory=False),
        replays(conditions),
        recovery(conditions),
    ]
