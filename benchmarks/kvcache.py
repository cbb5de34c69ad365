"""How fast do threads write whole KV entries and read them again? Ours beside a plain NumPy loop and fio.

Every contender does the same with the same sizes: each of so many threads writes its entries, an fsync each, then reads
each entry several times from the device (the page cache is dropped of it before, or passed by). The NumPy loop is what
a benchmark in Python does at its plainest: `np.save`, flush, fsync; `posix_fadvise`, `np.load`, one copy. It neither
makes content for each entry nor looks at what it reads; ours does both. The first row writes nowhere: what making the
content alone allows. Contenders take turns; ratios are taken round by round.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import ratios
from benchmarks.harness import Contender, PeerError, Turn, machine, race, save
from stoker.bench.rules.mlperf.sizing_serving import kv_models
from stoker.core.kvcache import STORAGE, KvPlan
from stoker.core.units import MiB, format_bytes
from stoker.kv.cache import KvCache, Tier
from stoker.kv.storage_tier import StorageTier
from stoker.storage.buffers import BufferPool
from stoker.storage.opening import open_store

MODEL = "tiny-1b"
CEILING = "stoker, null:// (content alone)"


class Work:
    """What every contender does: `threads` write `entries` each of `tokens` tokens, and read each `reads` times."""

    def __init__(self, threads: int, entries: int, tokens: int, reads: int) -> None:
        self.threads, self.entries, self.tokens, self.reads = threads, entries, tokens, reads
        self.entry_bytes = tokens * kv_models()[MODEL].bytes_per_token()
        self.bytes = threads * entries * self.entry_bytes * (1 + reads)

    def turn(self, write: Callable[[int, int], None], read: Callable[[int, int], None]) -> Turn:
        """Do it all by threads and return what that took."""
        errors: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                for number in range(self.entries):
                    write(thread, number)
                for _ in range(self.reads):
                    for number in range(self.entries):
                        read(thread, number)
            except BaseException as error:
                errors.append(error)

        used, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(self.threads)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        if errors:
            raise PeerError(f"{type(errors[0]).__name__}: {errors[0]}")
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        return Turn(self.bytes, self.threads * self.entries * (1 + self.reads), cpu, wall)


def ours(url: str, work: Work) -> Callable[[], Turn]:
    """Return a turn of our cache over a store; every turn has content of its own."""
    plan = KvPlan(kv_models()[MODEL], {})
    store, pool = open_store(url, create=True), BufferPool(64 * work.threads * MiB)
    seeds = iter(range(1 << 30))

    def run() -> Turn:
        tier = StorageTier(store, "ours", pool, plan.piece_bytes)
        tier.begin("benchmark")
        cache = KvCache(plan, [Tier(STORAGE, tier, 1 << 62)], pool, content_seed=next(seeds))
        try:
            return work.turn(
                lambda thread, number: _done(cache.write(f"user_{thread}_req_{number}", work.tokens, "Prefill")),
                lambda thread, number: _done(cache.read(f"user_{thread}_req_{number}", "Decode")),
            )
        finally:
            cache.clear()
            tier.end()

    return run


def _done(found: object) -> None:
    if found is None:
        raise PeerError("an entry is gone")


def numpy_loop(folder: Path, work: Work) -> Callable[[], Turn]:
    """Return a turn of the plain loop, its content made before the clock starts."""
    shape = kv_models()[MODEL].array_shape(work.tokens)
    noise = np.random.default_rng(1).integers(0, 1 << 15, int(np.prod(shape)) + work.threads * work.entries, np.uint16)

    def write(thread: int, number: int) -> None:
        start = thread * work.entries + number
        array = noise[start : start + int(np.prod(shape))].view(np.float16).reshape(shape)
        with (folder / f"np-{thread}-{number}.npy").open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())

    def read(thread: int, number: int) -> None:
        path = folder / f"np-{thread}-{number}.npy"
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        np.array(np.load(path, allow_pickle=False))

    def run() -> Turn:
        try:
            return work.turn(write, read)
        finally:
            for path in folder.glob("np-*.npy"):
                path.unlink()

    return run


def fio(folder: Path, work: Work, *, direct: bool) -> Callable[[], Turn]:
    """Return a turn of fio: as many jobs, files and reads, each phase by its own clock."""
    same = [f"--directory={folder}", f"--numjobs={work.threads}", f"--nrfiles={work.entries}", "--group_reporting"]
    same += [f"--filesize={work.entry_bytes}", f"--size={work.entries * work.entry_bytes}", "--output-format=json"]
    same += ["--file_service_type=sequential", "--bs=4m", "--name=fio", "--ioengine=psync", f"--direct={int(direct)}"]
    phases = (
        ["--rw=write", "--fsync_on_close=1", "--fallocate=none", "--refill_buffers"],
        ["--rw=read", "--invalidate=1", f"--loops={work.reads}"],
    )

    def run() -> Turn:
        wall = cpu = 0.0
        try:
            for phase in phases:
                done = subprocess.run(["fio", *same, *phase], check=False, capture_output=True, text=True)
                if done.returncode:
                    raise PeerError(f"fio failed: {(done.stderr or done.stdout).strip()[-200:]}")
                job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
                seconds = max(job["read"]["runtime"], job["write"]["runtime"]) / 1e3
                wall += seconds
                cpu += seconds * work.threads * (job["usr_cpu"] + job["sys_cpu"]) / 100
        finally:
            for path in folder.glob("fio.*"):
                path.unlink()
        return Turn(work.bytes, work.threads * work.entries * (1 + work.reads), cpu, wall)

    return run


def main() -> None:
    """Race in the folder and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--entries", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--reads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = (options.folder / f"stoker-bench-{os.getpid()}").absolute()
    folder.mkdir(parents=True)
    work = Work(options.threads, options.entries, options.tokens, options.reads)
    racers = [
        Contender(CEILING, ours("null://", work)),
        Contender("stoker, file://", ours(f"file://{folder}?fsync=none", work)),
        Contender("stoker, direct://", ours(f"direct://{folder}?fsync=none&fallback=buffered", work)),
        Contender("np.save, np.load in threads", numpy_loop(folder, work)),
    ]
    if shutil.which("fio"):
        racers.append(Contender("fio, buffered", fio(folder, work, direct=False)))
        racers.append(Contender("fio, O_DIRECT", fio(folder, work, direct=True)))
    try:
        race(racers, options.rounds)
    finally:
        shutil.rmtree(folder)
    entry = f"entries of {format_bytes(work.entry_bytes)}, each written once and read {work.reads} times"
    title = f"{options.threads} threads, {options.threads * options.entries} {entry}"
    able = [racer for racer in racers if racer.rounds and not racer.failed]
    rows = "\n".join(racer.row(able[0].rate()) for racer in able)
    head = (
        "| contender | median | spread | operations/s | CPU s per GiB | of the ceiling |\n|---|---|---|---|---|---|\n"
    )
    text = f"### {title}\n\n{head}{rows}\n\n{ratios(racers)}"
    print(text, machine()["cpu"])
    save(options.out, "kvcache", f"python -m benchmarks.kvcache FOLDER --rounds {options.rounds}", {title: able}, text)


if __name__ == "__main__":
    main()
