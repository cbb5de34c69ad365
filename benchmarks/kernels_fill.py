"""How fast is content made on one core? Our kernel and its plain twin beside memcpy and what else a user would pick.

Two figures each: bytes per second of CPU time, and of wall time. The buffer is made again and again in place, so a
small one stays in the cache. A peer that uses more than one thread is told from the CPU seconds. dgen-py makes blocks
of 1 MiB, several at a time, so it is left out of the small sizes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Contender, Turn, race, save
from stoker.core.units import KiB, MiB, format_bytes
from stoker.kernels import plain_fill
from stoker.kernels.filling import NO_MASK, PAGE_WORDS, PageStream, fill_pages, page_tile, pool_keys
from stoker.kernels.native import kernel_status

SIZES = (64 * KiB, 1 * MiB, 8 * MiB, 64 * MiB)
TURN_BYTES = 256 * MiB
SLOW_TURN_BYTES = 32 * MiB
FLOATS = 0xBFFF_FFFF_BFFF_FFFF
DGEN_BYTES_MIN = 8 * MiB

# Runs under the peer's own interpreter, and tells of its own times.
DGEN = """
import json, resource, sys, time
import dgen_py
size, total = int(sys.argv[1]), int(sys.argv[2])
out = bytearray(size)
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def turn(wanted):
    generator = dgen_py.Generator(size=wanted, max_threads=1, seed=7)
    made, wall, start = 0, time.perf_counter(), cpu()
    while made < wanted:
        made += generator.fill_chunk(out)
    return made, time.perf_counter() - wall, cpu() - start
turn(size)
print(json.dumps(turn(total)))
"""


def cpu_seconds() -> float:
    """Return the CPU seconds of this process so far, threads and kernel included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def repeated(size: int, make: Callable[[], object], turn_bytes: int = TURN_BYTES) -> Callable[[], Turn]:
    """Return a turn that calls `make` until `turn_bytes` are made."""

    def run() -> Turn:
        calls = max(1, turn_bytes // size)
        wall, start = time.perf_counter(), cpu_seconds()
        for _ in range(calls):
            make()
        return Turn(calls * size, calls, cpu_seconds() - start, time.perf_counter() - wall)

    return run


def dgen_turn(python: Path, size: int) -> Callable[[], Turn]:
    """Return a turn of dgen-py in a process of its own."""

    def run() -> Turn:
        command = [str(python), "-c", DGEN, str(size), str(TURN_BYTES)]
        told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        made, wall, cpu = json.loads(told)
        return Turn(made, made // size, cpu, wall)

    return run


def stream(compress_ratio: float) -> PageStream:
    """Return a stream with no duplicates."""
    random_words = round(PAGE_WORDS / compress_ratio)
    return PageStream(page_tile(1, random_words), random_words, pool_keys(2), 3, 0.5, 0.0)


def contenders(size: int, dgen_python: Path | None) -> list[Contender]:
    """Return those who fill a buffer of `size` bytes, the ceiling first."""
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + size]
    source = np.ones(size, np.uint8)
    plain, packed = stream(1.0), stream(2.0)
    chance = np.random.Generator(np.random.SFC64(1))
    words = size // 8
    racers = [Contender("memcpy (numpy.copyto)", repeated(size, lambda: np.copyto(out, source)))]
    if kernel_status().kind == "native":
        racers += [
            Contender("stoker, native", repeated(size, lambda: fill_pages(out.data, plain, offset_bytes=0))),
            Contender(
                "stoker, native, off by 3 bytes",
                repeated(size - 3, lambda: fill_pages(out[3:].data, plain, offset_bytes=8)),
            ),
            Contender(
                "stoker, native, compress 2", repeated(size, lambda: fill_pages(out.data, packed, offset_bytes=0))
            ),
            Contender(
                "stoker, native, floats tamed",
                repeated(size, lambda: fill_pages(out.data, plain, offset_bytes=0, mask=FLOATS)),
            ),
        ]
    racers += [
        Contender("stoker, plain", repeated(size, lambda: plain_fill.fill_pages(out.data, plain, 0, NO_MASK))),
        Contender("numpy SFC64", repeated(size, lambda: chance.integers(0, 2**64, words, np.uint64), SLOW_TURN_BYTES)),
        Contender("os.urandom", repeated(size, lambda: os.urandom(size), SLOW_TURN_BYTES)),
    ]
    if dgen_python is not None and size >= DGEN_BYTES_MIN:
        racers.append(Contender("dgen-py, max_threads=1", dgen_turn(dgen_python, size)))
    return racers


def rate_table(title: str, racers: list[Contender]) -> str:
    """Return a Markdown table of GB/s, by CPU seconds with their spread, and by wall."""
    head = (
        f"### {title}\n\n| contender | GB per CPU second | spread | of memcpy | GB/s, wall |\n|---|---|---|---|---|\n"
    )
    rows = []
    ceiling = 0.0
    for racer in racers:
        by_cpu = [entry.payload_bytes / entry.cpu_seconds / 1e9 for entry in racer.rounds]
        median = statistics.median(by_cpu)
        ceiling = ceiling or median
        spread = f"{min(by_cpu):.2f} … {max(by_cpu):.2f}"
        rows.append(f"| {racer.name} | {median:.2f} | {spread} | {median / ceiling:.0%} | {racer.rate() / 1e9:.2f} |\n")
    return head + "".join(rows)


def main() -> None:
    """Race at every size and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dgen-python", type=Path, help="an interpreter that has the package dgen-py")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.dgen_python is None:
        print("dgen-py is left out: pip install it somewhere, and name that interpreter with --dgen-python")
    status = kernel_status()
    if status.kind != "native":
        print(f"the native kernel is left out: {status.reason}")
    tables = {}
    for size in SIZES:
        racers = contenders(size, options.dgen_python)
        race(racers, options.rounds)
        tables[format_bytes(size)] = racers
    text = "\n".join(rate_table(f"{name}, one core", racers) for name, racers in tables.items())
    print(text)
    words = " --dgen-python PYTHON" if options.dgen_python else ""
    save(
        options.out, "kernels_fill", f"python -m benchmarks.kernels_fill --rounds {options.rounds}{words}", tables, text
    )


if __name__ == "__main__":
    main()
