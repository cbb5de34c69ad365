"""What each file system is asked to do, on a folder: real system calls, the same for all.

Each work prepares what it needs unmeasured, and returns a Turn. CPU seconds are those of the whole machine, for the
daemons and the kernel work on behalf of the caller: the machine must be quiet.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Turn
from stoker.core.units import KiB, MiB

CLIENTS = 16
PIECE_BYTES = MiB
SMALL_BYTES = 4 * KiB
SAMPLE_BYTES = 16 * KiB


@dataclass(frozen=True)
class Sizes:
    """How much of everything: bytes of the large file, durable creates, files to stat, samples of the loader."""

    large_bytes: int
    creates: int
    stats: int
    samples: int


def cpu_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(word) for word in words[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Measure:
    """Wall and CPU seconds of a block."""

    wall_seconds = 0.0
    cpu_seconds = 0.0

    def turn(self, payload_bytes: int, samples: int) -> Turn:
        """Return the turn that did this much."""
        return Turn(payload_bytes, samples, self.cpu_seconds, self.wall_seconds)


@contextmanager
def measured() -> Iterator[Measure]:
    """Measure a block."""
    measure = Measure()
    cpu, start = cpu_seconds(), time.perf_counter()
    yield measure
    measure.wall_seconds = time.perf_counter() - start
    measure.cpu_seconds = cpu_seconds() - cpu


def drop_caches() -> None:
    """Write what is dirty and forget what the kernel has cached, of every file system. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def write_large(folder: Path, sizes: Sizes) -> Turn:
    """Write a file in order, 1 MiB at a time, and wait until it is durable."""
    piece = random.Random(1).randbytes(PIECE_BYTES)
    path = folder / "large"
    with measured() as measure:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for _ in range(sizes.large_bytes // PIECE_BYTES):
            os.write(file, piece)
        os.fsync(file)
        os.close(file)
    return measure.turn(sizes.large_bytes, sizes.large_bytes // PIECE_BYTES)


def read_large(folder: Path, sizes: Sizes) -> Turn:
    """Read the file in order, 1 MiB at a time, with the kernel's caches dropped before."""
    if not (folder / "large").exists():
        write_large(folder, sizes)
    drop_caches()
    buffer = bytearray(PIECE_BYTES)
    got = 0
    with measured() as measure:
        file = os.open(folder / "large", os.O_RDONLY)
        while count := os.readv(file, [buffer]):
            got += count
        os.close(file)
    assert got == sizes.large_bytes, f"{got} bytes came of {sizes.large_bytes}"
    return measure.turn(got, got // PIECE_BYTES)


def create_small(folder: Path, sizes: Sizes) -> Turn:
    """Create files of 4 KiB, each written, synced and closed, by 16 clients at once."""
    home = _empty(folder / "small")
    data = random.Random(2).randbytes(SMALL_BYTES)

    def client(number: int) -> None:
        for step in range(sizes.creates // CLIENTS):
            file = os.open(home / f"{number}-{step}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(file, data)
            os.fsync(file)
            os.close(file)

    done = sizes.creates // CLIENTS * CLIENTS
    with ThreadPoolExecutor(CLIENTS) as pool, measured() as measure:
        list(pool.map(client, range(CLIENTS)))
    assert sum(1 for _ in home.iterdir()) == done
    return measure.turn(done * SMALL_BYTES, done)


def stat_warm(folder: Path, sizes: Sizes) -> Turn:
    """Ask for the attributes of files that were asked for just before."""
    home = folder / "stat"
    paths = [home / f"f{number}" for number in range(sizes.stats)]
    if not home.exists():
        home.mkdir()
        for path in paths:
            path.touch()
    for path in paths:
        path.stat()
    with measured() as measure:
        for path in paths:
            path.stat()
    return measure.turn(len(paths), len(paths))


def epoch(folder: Path, sizes: Sizes) -> Turn:
    """Read every sample's file once, in an order of its own, by 16 threads, with the kernel's caches dropped before."""
    paths = samples(folder, sizes)
    random.Random(time.monotonic_ns()).shuffle(paths)
    drop_caches()
    with ThreadPoolExecutor(CLIENTS) as pool, measured() as measure:
        got = sum(pool.map(_read_whole, paths, chunksize=64))
    assert got == len(paths) * SAMPLE_BYTES, f"{got} bytes came"
    return measure.turn(got, len(paths))


def samples(folder: Path, sizes: Sizes) -> list[Path]:
    """Return the files of the samples, made once, 1,000 in a folder."""
    home = folder / "samples"
    paths = [home / f"{number // 1000:04d}" / f"{number:08d}" for number in range(sizes.samples)]
    if not home.exists():
        data = random.Random(3).randbytes(SAMPLE_BYTES)
        for parent in sorted({path.parent for path in paths}):
            parent.mkdir(parents=True)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda path: path.write_bytes(data), paths, chunksize=64))
    return paths


def _read_whole(path: Path) -> int:
    file = os.open(path, os.O_RDONLY)
    try:
        return len(os.read(file, SAMPLE_BYTES + 1))
    finally:
        os.close(file)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


WORKS: dict[str, Callable[[Path, Sizes], Turn]] = {
    "sequential write, durable": write_large,
    "sequential read, cold": read_large,
    "create + write 4 KiB + sync + close, 16 clients": create_small,
    "stat, warm": stat_warm,
    "epoch over small files, cold": epoch,
}
