"""How fast is one rank's share of a checkpoint made durable? Ours beside fio and dd, on one folder, with an fsync each.

All write two files of the same sizes (a model's and an optimizer's) with content that does not shrink, and stop their
clock when both are synced. The first row writes nowhere: what the making of content alone allows. Contenders take
turns; ratios are taken round by round.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Contender, PeerError, Turn, machine, race, save
from stoker.checkpoint.manifest import shards
from stoker.checkpoint.timing import StageClock
from stoker.checkpoint.write import Staging, Writer
from stoker.core.checkpoints import ModelShape
from stoker.core.units import MiB, format_bytes
from stoker.storage.opening import open_store

NAME = "global_epoch1_step1"
STAGING = Staging(8, 16 * MiB)
CEILING = "stoker, null:// (content alone)"


def shape_of(size_bytes: int) -> ModelShape:
    """Return a model of one rank whose checkpoint has about `size_bytes`, a seventh of it the model's."""
    return ModelShape(layers=1, hidden_size=1024, ffn_hidden_size=max(1, size_bytes // 14 // 3072), vocab_size=1)


def ours(url: str, shape: ModelShape) -> Callable[[], Turn]:
    """Return a turn that writes the files anew through our writer; a seed of its own keeps each content new."""
    store = open_store(url, create=True)
    writer = Writer(store, STAGING)
    seeds = iter(range(1 << 30))

    def run() -> Turn:
        mine = shards("ours", NAME, shape, ranks=1, rank=0, content_seed=next(seeds))
        writer.warm(mine)
        used, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        writer.write(mine, StageClock())
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        for shard in mine:
            store.delete(shard.key)
        return Turn(sum(shard.file.size_bytes for shard in mine), len(mine), cpu, wall)

    return run


def fio(folder: Path, sizes: list[int], *, direct: bool) -> Callable[[], Turn]:
    """Return a turn of fio: one file after the other, new random content in every block, an fsync at each end."""

    def run() -> Turn:
        wall = cpu = 0.0
        for number, size in enumerate(sizes):
            path = folder / f"fio-{number}"
            words = ["fio", "--name=w", f"--filename={path}", "--rw=write", f"--size={size // 4096 * 4096}"]
            words += ["--end_fsync=1", "--fallocate=none", "--refill_buffers", "--output-format=json"]
            words += ["--ioengine=io_uring", "--iodepth=32", "--bs=1m", "--direct=1"] if direct else ["--bs=1m"]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            path.unlink(missing_ok=True)
            if done.returncode:
                raise PeerError(f"fio failed: {(done.stderr or done.stdout).strip()[-200:]}")
            job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
            seconds = job["job_runtime"] / 1e3
            wall += seconds
            cpu += seconds * (job["usr_cpu"] + job["sys_cpu"]) / 100
        return Turn(sum(sizes), len(sizes), cpu, wall)

    return run


def dd(folder: Path, sizes: list[int]) -> Callable[[], Turn]:
    """Return a turn of dd with conv=fsync, from a file of random bytes in memory."""
    source = Path("/dev/shm") / f"stoker-bench-{os.getpid()}"
    source.write_bytes(os.urandom(64 * MiB))

    def run() -> Turn:
        used, wall = resource.getrusage(resource.RUSAGE_CHILDREN), 0.0
        for number, size in enumerate(sizes):
            path = folder / f"dd-{number}"
            script = f"for i in $(seq {-(-size // (64 * MiB))}); do cat {source}; done | dd of={path} bs=1M"
            words = ["bash", "-c", f"{script} iflag=fullblock,count_bytes count={size} conv=fsync 2>&1"]
            start = time.perf_counter()
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            wall += time.perf_counter() - start
            path.unlink(missing_ok=True)
            if done.returncode:
                raise PeerError(f"dd failed: {done.stdout.strip()[-200:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        return Turn(sum(sizes), len(sizes), cpu, wall)

    return run


def ratios(racers: list[Contender]) -> str:
    """Return a Markdown table of ours over each peer's, round by round: the median and the extremes."""
    able = [racer for racer in racers if racer.rounds and not racer.failed]
    rows = []
    for mine in (racer for racer in able if racer.name.startswith("stoker") and racer.name != CEILING):
        for other in (racer for racer in able if racer is not mine):
            pairs = zip(mine.rounds, other.rounds, strict=True)
            found = [(a.payload_bytes / a.wall_seconds) / (b.payload_bytes / b.wall_seconds) for a, b in pairs]
            spread = f"{min(found):.2f} … {max(found):.2f}"
            rows.append(f"| {mine.name} | {other.name} | {statistics.median(found):.2f} | {spread} |")
    return "| ours | over | median | spread |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Race in the folder and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = options.folder / f"stoker-bench-{os.getpid()}"
    folder.mkdir(parents=True)
    shape = shape_of(options.size_mib * MiB)
    sizes = [shard.file.size_bytes for shard in shards("ours", NAME, shape, ranks=1, rank=0, content_seed=0)]
    place = folder.absolute()
    racers = [
        Contender(CEILING, ours("null://", shape)),
        Contender("stoker, file:// fsync=full", ours(f"file://{place}?fsync=full", shape)),
        Contender("stoker, direct:// fsync=full", ours(f"direct://{place}?fsync=full&fallback=buffered", shape)),
    ]
    if shutil.which("fio"):
        racers += [
            Contender("fio, buffered, end_fsync", fio(place, sizes, direct=False)),
            Contender("fio, O_DIRECT, io_uring depth 32, end_fsync", fio(place, sizes, direct=True)),
        ]
    racers.append(Contender("dd conv=fsync", dd(place, sizes)))
    try:
        race(racers, options.rounds)
    finally:
        shutil.rmtree(folder)
        Path(f"/dev/shm/stoker-bench-{os.getpid()}").unlink(missing_ok=True)
    title = f"Two files, {format_bytes(sum(sizes))}, durable"
    able = [racer for racer in racers if racer.rounds and not racer.failed]
    rows = "\n".join(racer.row(able[0].rate()) for racer in able)
    head = "| contender | median | spread | files/s | CPU s per GiB | of the ceiling |\n|---|---|---|---|---|---|\n"
    text = f"### {title}\n\n{head}{rows}\n\n{ratios(racers)}"
    print(text, machine()["cpu"])
    command = f"python -m benchmarks.checkpoints FOLDER --size-mib {options.size_mib} --rounds {options.rounds}"
    save(options.out, "checkpoints", command, {title: able}, text)


if __name__ == "__main__":
    main()
