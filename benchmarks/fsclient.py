"""`python -m benchmarks.fsclient`: files of a volume beside plain files in a folder of the same disk.

Sequential writing up to and with fsync, and reading with what is cached dropped on both sides; durable small files of
many threads (create, write, fsync, close and the directory synced, as the volume does); reading many small files by one
call, one by one, and as plain files. Contenders take turns; rates are medians of the rounds.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from stoker.core.clock import utc_text
from stoker.core.files import sync_folder
from stoker.core.units import MiB
from stoker.fs.client import Client, FileTree
from stoker.fs.client.places import Place, opened_place
from stoker.fs.meta import Volume

THREADS = 16
SMALL_BYTES = 4096
STEP_BYTES = MiB

Rates = dict[str, list[float]]
RATIOS = (
    ("volume: write", "plain: write"),
    ("volume: read", "plain: read"),
    ("volume: small files", "plain: small files"),
    ("volume: read many", "volume: read one by one"),
    ("volume: read many", "plain: read one by one"),
)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fsclient", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the work, 3 rounds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds, instead of 5")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--out", type=Path, default=None, help="folder for a JSON document")
    return parser.parse_args(words)


@contextmanager
def volume_in(folder: Path) -> Iterator[Place]:
    """Give an empty volume with its bytes in a folder."""
    url = f"sqlite://{folder}/volume.db"
    Volume.format(url).close()
    with opened_place(url) as place:
        yield place


def timed(count: float, work: Callable[[], object]) -> float:
    """Return how many of `count` things are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def drop_cached(folder: Path) -> None:
    """Drop the clean pages of a folder's files from the host's page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def stream(rates: Rates, place: Place, plain: Path, size_bytes: int) -> None:
    """Write a large file and read it again, in the volume and beside it."""
    block = os.urandom(STEP_BYTES)
    steps = size_bytes // STEP_BYTES

    def write_plain() -> None:
        with (plain / "large").open("wb", buffering=0) as file:
            for _ in range(steps):
                file.write(block)
            os.fsync(file.fileno())

    def write_volume() -> None:
        with FileTree(place.client).open("/large", "wb") as file:
            for _ in range(steps):
                file.write(block)
            file.fsync()

    rates.setdefault("plain: write", []).append(timed(steps, write_plain))
    rates.setdefault("volume: write", []).append(timed(steps, write_volume))
    drop_cached(plain.parent)
    into = bytearray(STEP_BYTES)

    def read_plain() -> None:
        with (plain / "large").open("rb", buffering=0) as file:
            while file.readinto(into):
                pass

    def read_volume() -> None:
        with Client(place.volume, place.store) as fresh, FileTree(fresh).open("/large") as file:
            while file.readinto(into):
                pass

    rates.setdefault("plain: read", []).append(timed(steps, read_plain))
    rates.setdefault("volume: read", []).append(timed(steps, read_volume))


def small_files(rates: Rates, place: Place, plain: Path, count: int) -> None:
    """Make durable small files by many threads, in the volume and beside it."""
    data = os.urandom(SMALL_BYTES)
    (plain / "small").mkdir()
    tree = FileTree(place.client)
    tree.mkdir("/small")

    def one_plain(number: int) -> None:
        with (plain / "small" / f"{number}").open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        sync_folder(plain / "small")

    def one_volume(number: int) -> None:
        tree.write_bytes(f"/small/{number}", data)

    for name, work in (("plain", one_plain), ("volume", one_volume)):
        with ThreadPoolExecutor(THREADS) as pool:
            rate = timed(count, lambda pool=pool, work=work: list(pool.map(work, range(count))))
        rates.setdefault(f"{name}: small files", []).append(rate)


def read_small(rates: Rates, place: Place, plain: Path, count: int) -> None:
    """Read the small files by one call, and one by one."""
    names = [f"/small/{number}" for number in range(count)]

    def read_plain() -> None:
        for number in range(count):
            (plain / "small" / f"{number}").read_bytes()

    rates.setdefault("plain: read one by one", []).append(timed(count, read_plain))

    def one_by_one(tree: FileTree) -> None:
        for name in names:
            with tree.open(name) as file:
                file.read()

    for what, work in (("read many", lambda tree: tree.read_many(names)), ("read one by one", one_by_one)):
        with Client(place.volume, place.store) as fresh:
            tree = FileTree(fresh)
            rates.setdefault(f"volume: {what}", []).append(timed(count, lambda tree=tree, work=work: work(tree)))


def one_round(scratch: Path, size_bytes: int, count: int, rates: Rates) -> None:
    """Measure every contender once, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        (folder / "plain").mkdir()
        with volume_in(folder) as place:
            stream(rates, place, folder / "plain", size_bytes)
            small_files(rates, place, folder / "plain", count)
            read_small(rates, place, folder / "plain", count)


def document_of(rates: Rates, command: str) -> dict[str, Any]:
    """Return medians, spreads and ratios."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [
        {
            "what": name,
            "unit": "MiB" if name.endswith((": write", ": read")) else "files",
            "per_second": round(medians[name], 1),
            "low": round(min(values), 1),
            "high": round(max(values), 1),
        }
        for name, values in rates.items()
    ]
    ratios = [{"of": a, "to": b, "ratio": round(medians[a] / medians[b], 2)} for a, b in RATIOS]
    return {"command": command, "made": utc_text(), "machine": machine(), "rows": rows, "ratios": ratios}


def markdown(document: dict[str, Any]) -> str:
    """Return the figures as a table."""
    lines = ["| what | unit | a second | spread |", "|---|---|---:|---:|"]
    lines += [f"| {r['what']} | {r['unit']} | {r['per_second']} | {r['low']} - {r['high']} |" for r in document["rows"]]
    lines += ["", *(f"- {r['of']} is {r['ratio']} x {r['to']}" for r in document["ratios"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the document when told where."""
    asked = parsed()
    rounds = asked.rounds or (3 if asked.quick else 5)
    size_bytes, count = (128 * MiB, 500) if asked.quick else (1024 * MiB, 4000)
    rates: Rates = {}
    for number in range(rounds):
        one_round(asked.scratch, size_bytes, count, rates)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    document = document_of(rates, shlex.join(["python", "-m", "benchmarks.fsclient", *sys.argv[1:]]))
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "fsclient.json").write_text(json.dumps(document, indent=1) + "\n")
    print(markdown(document))


if __name__ == "__main__":
    main()
