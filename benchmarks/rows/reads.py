"""Row a: one process, one thread, one file: our batch reads beside fio's io_uring at equal depth and block size.

What lies in the page cache measures the client, what goes past it (O_DIRECT) the device under the client. Both run for
equal seconds in turn. fio's CPU is the user and system share it tells of its own job; ours is the whole process, kernel
worker threads included. `fio io_uring` has nothing but engine, depth and block size set. fio reuses as many blocks of
memory as its depth; ours fills a batch of blocks at each call, from the cache as many. Ours reads as the loader does,
into memory of the kind that its pool lends: huge pages asked for, and not told to the kernel beforehand, as the tuned
fio's is.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.harness import Contender, PeerError, Turn, race
from benchmarks.peers import run_turn, turn_of
from stoker.core.units import GiB, KiB, MiB

FIO = "fio io_uring"
FIO_TUNED = "fio, registered memory and batched submission"
_TUNED = ("--fixedbufs", "--registerfiles", "--gtod_reduce=1", "--iodepth_batch_complete_min=1")
_FILL_BYTES = 64 * MiB
_CACHED_BATCH_BYTES = 2 * MiB
_DIRECT_BATCH_BYTES_MAX = 256 * MiB


class Case(NamedTuple):
    """One way of reading. `depth` counts requests under way."""

    direct: bool
    sequential: bool
    block_bytes: int
    depth: int

    @property
    def key(self) -> str:
        """Return the contest's key."""
        size = f"{self.block_bytes // KiB} KiB" if self.block_bytes < MiB else f"{self.block_bytes // MiB} MiB"
        source = "direct" if self.direct else "cached"
        return f"reads/{source}/{'sequential' if self.sequential else 'random'}/{size}/depth {self.depth}"

    @property
    def batch_bytes(self) -> int:
        """Return how much one call of ours reads: past the cache enough that draining the queue is rare, from it as
        many blocks as fio fills in turn, or 2 MiB of small ones."""
        blocks = 16 * self.depth if self.direct else max(self.depth, _CACHED_BATCH_BYTES // self.block_bytes)
        return max(self.block_bytes, min(blocks * self.block_bytes, _DIRECT_BATCH_BYTES_MAX))


_RANDOM = ((4 * KiB, 1), (4 * KiB, 32), (4 * KiB, 64), (128 * KiB, 32), (MiB, 32), (140 * MiB, 1))
_SEQUENTIAL = ((4 * KiB, 32), (128 * KiB, 32), (MiB, 32), (140 * MiB, 1))
_QUICK = ((4 * KiB, 32), (128 * KiB, 32), (MiB, 32))
_FULL = (*((size, depth) for size in (4 * KiB, 128 * KiB, MiB) for depth in (1, 16, 32, 64)), (140 * MiB, 1))


def cases(conditions: Conditions) -> list[Case]:
    """Return the cases of the scale."""
    pairs: dict[bool, tuple[tuple[int, int], ...]] = {False: _RANDOM, True: _SEQUENTIAL}
    if conditions.scale != "default":
        pairs = dict.fromkeys((False, True), _QUICK if conditions.scale == "quick" else _FULL)
    return [Case(direct, order, *pair) for direct in (False, True) for order, found in pairs.items() for pair in found]


def write_file(path: Path, size_bytes: int) -> None:
    """Write incompressible bytes and see that they are on the device."""
    random = np.random.Generator(np.random.SFC64(1))
    with path.open("wb") as file:
        for start in range(0, size_bytes, _FILL_BYTES):
            count = min(_FILL_BYTES, size_bytes - start) // 8
            file.write(random.integers(0, 2**64, count, np.uint64).data)
        file.flush()
        os.fsync(file.fileno())


def settle(path: Path, *, direct: bool) -> None:
    """Drop the file from the page cache for direct reads, else see that it lies there."""
    with path.open("rb", buffering=0) as file:
        if direct:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return
        buffer = bytearray(MiB)
        while file.readinto(buffer):
            pass


def fio_turn(fio: str, path: Path, case: Case, seconds: float, extra: tuple[str, ...] = ()) -> Turn:
    """Let fio read for the seconds."""
    if case.direct:
        settle(path, direct=True)
    words = [f"--filename={path}", f"--bs={case.block_bytes}", f"--iodepth={case.depth}"]
    words += [f"--rw={'read' if case.sequential else 'randread'}", f"--direct={int(case.direct)}", "--invalidate=0"]
    words += ["--time_based", f"--runtime={round(seconds * 1000)}ms", "--norandommap", "--randrepeat=0"]
    words += ["--name=peer", "--ioengine=io_uring", "--output-format=json", *extra]
    done = subprocess.run([fio, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError((done.stderr or done.stdout).strip().splitlines()[-1])
    return fio_result(json.loads(done.stdout[done.stdout.index("{") :]))


def fio_result(document: dict[str, Any]) -> Turn:
    """Return what fio's JSON tells of its only job."""
    job = document["jobs"][0]
    seconds = job["read"]["runtime"] / 1e3
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1e3
    return Turn(job["read"]["io_bytes"], job["read"]["total_ios"], cpu, seconds)


def ours_turn(python: str, path: Path, case: Case, seconds: float) -> Turn:
    """Read for the seconds through our engine."""
    if case.direct:
        settle(path, direct=True)
    asked = {"path": str(path), "seconds": seconds, "size_bytes": path.stat().st_size, "batch_bytes": case.batch_bytes}
    return turn_of(run_turn(python, "stoker_reads", {**case._asdict(), **asked}))


def contest(conditions: Conditions, case: Case, path: Path, seconds: float) -> Contest:
    """Race ours with fio in one case."""
    contenders = [Contender("stoker", lambda: ours_turn(conditions.python, path, case, seconds))]
    missing = {}
    fio = conditions.peers.python("fio")
    if fio is None:
        missing[FIO] = conditions.peers.missing["fio"]
    else:
        contenders.append(Contender(FIO, lambda: fio_turn(fio, path, case, seconds)))
        if conditions.scale != "quick" and case.depth > 1 and (case.direct or case.block_bytes == 4 * KiB):
            batch = max(1, case.depth // 4)
            tuned = (*_TUNED, f"--iodepth_batch_submit={batch}", f"--iodepth_batch_complete_max={batch}")
            contenders.append(Contender(FIO_TUNED, lambda: fio_turn(fio, path, case, seconds, tuned)))
    settle(path, direct=case.direct)
    race(contenders, conditions.rounds, warm_rounds=0)
    return Contest(case.key, contenders, ceiling=FIO, missing=missing)


def run(conditions: Conditions) -> list[Contest]:
    """Run every case on one file."""
    seconds = {"quick": 0.5, "default": 1.0, "full": 2.0}[conditions.scale]
    size_bytes = conditions.choose(1, 2, 2) * GiB
    with conditions.folder(size_bytes) as folder:
        path = folder / "reads"
        write_file(path, size_bytes)
        return [contest(conditions, case, path, seconds) for case in cases(conditions)]
