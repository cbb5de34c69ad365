"""`python -m benchmarks.fsdisk`: a disk of shards beside plain files of the same disk.

How many small shards are stored durably in a second, by one writer and by many that share syncs, beside one fdatasync
for each? How fast are large shards written durably and read, verified, beside a plain write with fdatasync and a plain
read of as many bytes? How fast is everything read again by the scrub? Contenders take turns in each round; rates are
medians, CPU seconds are those of this process.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.fsmeta import sync_seconds
from benchmarks.harness import machine
from stoker.core.clock import utc_text
from stoker.core.units import KiB, MiB
from stoker.fs.disk import Disk, DiskOptions, ShardHeader, ShardId, cell_crcs

THREADS = 16
SMALL_BYTES = 4 * KiB
LARGE_BYTES = 8 * MiB

Rates = dict[str, list[float]]
PAIRS = (
    (f"durable {SMALL_BYTES // KiB} KiB shards by {THREADS} threads", "durable 4 KiB appends, one sync each"),
    ("large shards written durably, MiB", "plain files written, fdatasync each, MiB"),
    ("large shards read and verified, MiB", "plain files read, MiB"),
)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fsdisk", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, 3 rounds")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


class Round:
    """One round: a disk of its own, and plain files beside it."""

    def __init__(self, folder: Path, rates: Rates, cpu: Rates) -> None:
        self.folder = folder
        self.rates = rates
        self.cpu = cpu
        self.disk = Disk.make(folder / "disk", str(uuid4()), DiskOptions(reserve_bytes=0, reserve_ratio=0.0))
        self.small = os.urandom(SMALL_BYTES)
        self.large = os.urandom(LARGE_BYTES)

    def timed(self, what: str, amount: float, work: Callable[[], object]) -> None:
        """Note how much of something was done in a second, and in a second of CPU time."""
        start, cpu = time.perf_counter(), time.process_time()
        work()
        self.rates.setdefault(what, []).append(amount / (time.perf_counter() - start))
        self.cpu.setdefault(what, []).append(amount / max(1e-9, time.process_time() - cpu))

    def put(self, number: int, data: bytes, cell_bytes: int, *, durable: bool) -> None:
        """Store a shard, checksums and all."""
        crcs = cell_crcs([data], cell_bytes)
        shard = ShardId(number, 1, 0)
        header = ShardHeader(self.disk.volume, shard, 0, 1, 0, cell_bytes, len(data), len(data), crcs)
        self.disk.put(header, [data], durable=durable, checked=True)

    def small_puts(self, count: int) -> None:
        """Measure durable small shards, of one writer and of many, and single appends with a sync each."""

        def plain() -> None:
            with (self.folder / "appended").open("wb", buffering=0) as file:
                for _ in range(count // 8):
                    file.write(self.small)
                    os.fdatasync(file.fileno())

        def alone() -> None:
            for number in range(count // 8):
                self.put(number, self.small, SMALL_BYTES, durable=True)

        def together() -> None:
            numbers = range(count, 2 * count)
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda n: self.put(n, self.small, SMALL_BYTES, durable=True), numbers))

        self.timed(PAIRS[0][1], count // 8, plain)
        self.timed("durable 4 KiB shards by one thread", count // 8, alone)
        self.timed(PAIRS[0][0], count, together)
        self.timed("4 KiB shards, not durable", count, lambda: [
            self.put(number, self.small, SMALL_BYTES, durable=False) for number in range(2 * count, 3 * count)
        ])  # fmt: skip
        self.timed("4 KiB shards read and verified", count, lambda: [
            self.disk.get(ShardId(number, 1, 0), [(0, SMALL_BYTES)]) for number in range(2 * count, 3 * count)
        ])  # fmt: skip

    def large_files(self, count: int) -> None:
        """Measure large shards and plain files of the same size, in the page cache when they are read."""

        def written() -> None:
            for number in range(count):
                with (self.folder / f"plain-{number}").open("xb", buffering=0) as file:
                    file.write(self.large)
                    os.fdatasync(file.fileno())

        def read() -> None:
            for number in range(count):
                with (self.folder / f"plain-{number}").open("rb", buffering=0) as file:
                    file.readinto(bytearray(LARGE_BYTES))

        def stored() -> None:
            for number in range(count):
                self.put(10**6 + number, self.large, MiB, durable=True)

        def fetched() -> None:
            for number in range(count):
                self.disk.get(ShardId(10**6 + number, 1, 0), [(0, LARGE_BYTES)])

        amount = count * LARGE_BYTES / MiB
        for what, work in zip((*PAIRS[1], *PAIRS[2]), (stored, written, fetched, read), strict=True):
            self.timed(what, amount, work)

    def scrub(self) -> None:
        """Measure a whole pass."""
        self.timed("scrubbed, MiB", self.disk.used_bytes() / MiB, lambda: self.disk.scrub(1 << 50))
        status = self.disk.status()
        assert (status.bad_shards, status.scrub.passes) == (0, 1)

    def close(self) -> None:
        """Close the disk and tell how many syncs were shared."""
        waits, syncs = self.disk.sync_counts()
        self.rates.setdefault("durable shards for one sync, over all", []).append(waits / max(1, syncs))
        self.disk.close()


def document_of(rates: Rates, cpu: Rates, command: str, syncs: list[float]) -> dict[str, Any]:
    """Return the result as it is saved; `syncs` are the seconds of an fdatasync before each round."""
    rows = [
        {"what": what, "per_second": statistics.median(each), "low": min(each), "high": max(each),
         "per_cpu_second": statistics.median(cpu[what]) if what in cpu else None}
        for what, each in rates.items()
    ]  # fmt: skip
    medians = {row["what"]: row["per_second"] for row in rows}
    ratios = [{"of": ours, "to": plain, "ratio": medians[ours] / medians[plain]} for ours, plain in PAIRS]
    facts = {"sync_seconds": statistics.median(syncs), "load_average": os.getloadavg()[1]}
    return {"utc": utc_text(), "command": command, "machine": machine(), **facts, "rows": rows, "ratios": ratios}


def markdown(document: dict[str, Any]) -> str:
    """Return the tables for people."""
    facts = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    lines = [
        "## File system: one disk",
        f"\nCommand: `{document['command']}`, {document['utc']}. Machine: {facts}.",
        f"One fdatasync takes {document['sync_seconds'] * 1000:.1f} ms; load average {document['load_average']:.1f}.",
        "Medians of the rounds, contenders in turns.\n",
        "| what | a second | low | high | a CPU second |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in document["rows"]:
        cpu = "" if row["per_cpu_second"] is None else f"{row['per_cpu_second']:,.0f}"
        lines.append(f"| {row['what']} | {row['per_second']:,.1f} | {row['low']:,.1f} | {row['high']:,.1f} | {cpu} |")
    lines += ["\n| of | to | ratio |", "|---|---|---:|"]
    lines += [f"| {each['of']} | {each['to']} | {each['ratio']:.2f} |" for each in document["ratios"]]
    return "\n".join([*lines, ""])


def main(words: list[str] | None = None) -> None:
    """Measure, write `fsdisk.json` and `fsdisk.md`, print the tables."""
    options = parsed(words)
    small, large, rounds = (400, 4, 3) if options.quick else (4000, 32, 5)
    rates: Rates = {}
    cpu: Rates = {}
    syncs = []
    for number in range(rounds):
        syncs.append(sync_seconds(options.scratch))
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            one = Round(Path(folder), rates, cpu)
            one.small_puts(small)
            one.large_files(large)
            one.scrub()
            one.close()
        print(f"round {number + 1} of {rounds}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    command = shlex.join(["python", "-m", "benchmarks.fsdisk", *(["--quick"] if options.quick else [])])
    document = document_of(rates, cpu, command, syncs)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fsdisk.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "fsdisk.md").write_text(markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
