"""What does a read cost the processor? The read engines beside a loop of os.preadv, on cached files and past the cache.

Cached on purpose: this measures the client, not the device. The cases past the page cache (`--direct`) measure both.
"""

import argparse
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import Contender, Turn, race, save, table
from stoker.core.units import GiB, KiB, MiB
from stoker.kernels.files import DONE_COLUMNS, DONE_STATUS, FILE_COLUMNS, RANGE_COLUMNS, Int64s, ReadEngine
from stoker.kernels.reading import engine_facts, open_read_engine

FILE_BYTES = 256 * MiB
SMALL_FILES = 2000
SMALL_BYTES = 100 * KiB
SLOTS = 32
DEPTH = 32


class Room:
    """Page-aligned memory with as many slots as requests are under way."""

    def __init__(self, slot_bytes: int) -> None:
        self.size_bytes = SLOTS * slot_bytes
        self._map = mmap.mmap(-1, self.size_bytes)
        self.view = memoryview(self._map)
        array = np.frombuffer(self._map, np.uint8)
        array[:] = 1
        self.address = int(array.ctypes.data)


@dataclass(frozen=True)
class Case:
    """What is read: ranges of one open file (`file`), or whole files below `folder`."""

    title: str
    ranges: Int64s
    room: Room
    length_bytes: int
    flags: int
    file: int = -1
    folder: int = -1
    keys: tuple[str, ...] = ()

    def turn(self, cpu_start: float, seconds: float) -> Turn:
        """Return what a turn has delivered."""
        count = len(self.ranges)
        return Turn(count * self.length_bytes, count, time.process_time() - cpu_start, seconds)


def random_case(path: Path, length_bytes: int, count: int, flags: int) -> Case:
    """Random reads of one length inside one file."""
    room = Room(length_bytes)
    starts = np.random.default_rng(7).integers(0, FILE_BYTES // length_bytes, count) * length_bytes
    title = f"{length_bytes // KiB} KiB at random"
    return Case(
        title, _ranges(starts, room, length_bytes), room, length_bytes, flags, os.open(path, os.O_RDONLY | flags)
    )


def files_case(folder: Path, flags: int) -> Case:
    """Whole small files, each opened, read and closed."""
    keys = tuple(f"file{number:05}" for number in range(SMALL_FILES))
    room = Room(SMALL_BYTES)
    ranges = _ranges(np.zeros(SMALL_FILES, np.int64), room, SMALL_BYTES)
    ranges[:, 0] = np.arange(SMALL_FILES)
    title = f"{SMALL_FILES:,} files of {SMALL_BYTES // KiB} KiB"
    return Case(title, ranges, room, SMALL_BYTES, flags, folder=os.open(folder, os.O_RDONLY), keys=keys)


def _ranges(starts: Int64s, room: Room, length_bytes: int) -> Int64s:
    ranges = np.zeros((len(starts), RANGE_COLUMNS), np.int64)
    ranges[:, 1] = starts
    ranges[:, 2:4] = length_bytes
    ranges[:, 4] = room.address + np.arange(len(starts)) % SLOTS * length_bytes
    return ranges


def engine_turn(engine: ReadEngine, case: Case, residency: bool) -> Turn:
    """Read the case by one call of an engine."""
    done = np.zeros((len(case.ranges), DONE_COLUMNS), np.int64)
    cpu_start, start = time.process_time(), time.perf_counter()
    if case.keys:
        files_done = np.zeros((len(case.keys), FILE_COLUMNS), np.int64)
        engine.read_files(
            case.folder,
            case.keys,
            case.flags,
            case.ranges,
            residency=residency,
            files_done=files_done,
            ranges_done=done,
        )
    else:
        engine.read_open([case.file], case.ranges, residency=residency, ranges_done=done)
    turn = case.turn(cpu_start, time.perf_counter() - start)
    assert not done[:, DONE_STATUS].any()
    return turn


def loop_turn(case: Case) -> Turn:
    """Read the case as a user without engines would."""
    length = case.length_bytes
    into = [case.room.view[slot * length : (slot + 1) * length] for slot in range(SLOTS)]
    starts = case.ranges[:, 1].tolist()
    cpu_start, start = time.process_time(), time.perf_counter()
    for number, offset_bytes in enumerate(starts):
        file = os.open(case.keys[number], os.O_RDONLY | case.flags, dir_fd=case.folder) if case.keys else case.file
        got_bytes = os.preadv(file, [into[number % SLOTS]], offset_bytes)
        assert got_bytes == length
        if case.keys:
            os.close(file)
    return case.turn(cpu_start, time.perf_counter() - start)


def contenders(case: Case, residency: bool) -> list[Contender]:
    """Return the loop and every engine that is there."""

    def entry(name: str, engine: ReadEngine) -> Contender:
        return Contender(name, partial(engine_turn, engine, case, residency))

    kinds = engine_facts().kinds
    racers = [Contender("os.preadv loop", partial(loop_turn, case))]
    racers += [entry(kind, open_read_engine(kind, queue_depth=DEPTH)) for kind in kinds]
    if case.flags and "io_uring" in kinds:
        registered = open_read_engine("io_uring", queue_depth=DEPTH)
        if registered.register(case.room.address, case.room.size_bytes):
            racers.append(entry("io_uring, registered memory", registered))
    return racers


def prepare(folder: Path) -> None:
    """Write the files and bring them into the page cache."""
    block = os.urandom(MiB)
    with (folder / "large").open("wb") as file:
        for _ in range(FILE_BYTES // MiB):
            file.write(block)
        os.fsync(file.fileno())
    for number in range(SMALL_FILES):
        (folder / f"file{number:05}").write_bytes(block[:SMALL_BYTES])
    os.sync()
    for path in folder.iterdir():
        path.read_bytes()


def cases(folder: Path, direct: bool) -> list[Callable[[], Case]]:
    """Return the makers of the cases: rooms are not held all at once."""
    large, flags = folder / "large", os.O_DIRECT if direct else 0
    counts = {4 * KiB: 10_000, 128 * KiB: 1000, MiB: 200} if direct else {4 * KiB: 50_000, 128 * KiB: 4000, MiB: 500}
    made: list[Callable[[], Case]] = [
        partial(random_case, large, length, count, flags) for length, count in counts.items()
    ]
    return [*made, partial(files_case, folder, flags)]


def main() -> None:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--residency", action="store_true", help="ask the page cache before each read")
    parser.add_argument("--direct", action="store_true", help="read past the page cache (O_DIRECT)")
    parser.add_argument("--scratch", type=Path, help="folder for the files; a temporary one when not given")
    parser.add_argument("--out", type=Path, help="folder for the results; they are only printed when not given")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.scratch, prefix="stoker-bench-"))
    assert shutil.disk_usage(scratch).free > GiB, "not enough free space for the files"
    tables: dict[str, list[Contender]] = {}
    try:
        prepare(scratch)
        for make in cases(scratch, options.direct):
            case = make()
            tables[case.title] = contenders(case, options.residency)
            race(tables[case.title], options.rounds)
    finally:
        shutil.rmtree(scratch)
    text = "\n".join(table(title, racers, ceiling="os.preadv loop") for title, racers in tables.items())
    print(text)
    flags = "".join(f" --{name}" for name in ("residency", "direct") if getattr(options, name))
    if options.out is not None:
        name = "kernels_read_direct" if options.direct else "kernels_read"
        save(options.out, name, f"python -m benchmarks.kernels_read{flags} --rounds {options.rounds}", tables, text)


if __name__ == "__main__":
    main()
