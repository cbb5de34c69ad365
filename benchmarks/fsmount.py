"""`python -m benchmarks.fsmount`: a mounted volume beside the disk that its bytes and names lie on.

What does a program get of a file through the kernel, our server, the client and the local store, as a share of what the
same disk gives directly? Sequential writing with an fsync at the end, reading back with nothing in the kernel's cache,
creating small files that are closed (and so durable on the mount; on the disk they are not, nothing is synced there),
and asking for attributes of names that nobody has asked for. Both take turns; rates are medians of the rounds.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from stoker.core.clock import utc_text
from stoker.core.units import MiB

PIECE_BYTES = 1 * MiB


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fsmount", description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the large file")
    parser.add_argument("--files", type=int, default=500, help="how many small files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Give a mount of a new volume in a folder."""
    stoker = [sys.executable, "-c", "from stoker.cli.main import main; main()", "fs"]
    url, point = f"sqlite://{folder}/v.db", folder / "mount"
    point.mkdir()
    subprocess.run([*stoker, "format", url], check=True, capture_output=True)
    subprocess.run([*stoker, "mount", url, str(point)], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run([*stoker, "umount", str(point)], check=True, capture_output=True)


def rate(count: float, work: Callable[[], None]) -> float:
    """Return how many of `count` things are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def write_large(path: Path, mebibytes: int) -> None:
    """Write a file in pieces, and have it durable."""
    data = os.urandom(PIECE_BYTES)
    with path.open("wb", buffering=0) as file:
        for _ in range(mebibytes):
            file.write(data)
        os.fsync(file.fileno())


def read_large(path: Path) -> None:
    """Read a file in pieces."""
    buffer = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: Path) -> None:
    """Have the kernel forget the pages of a file, so that they are read anew."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def one_round(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the rates in one folder."""
    large, small = folder / "large", folder / "small"
    small.mkdir()
    names = [small / f"{index:06}" for index in range(options.files)]
    found = {"write_MiB_per_second": rate(options.mebibytes, lambda: write_large(large, options.mebibytes))}
    forget(large)
    found["read_MiB_per_second"] = rate(options.mebibytes, lambda: read_large(large))
    found["creates_per_second"] = rate(
        options.files, lambda: [name.write_bytes(b"x" * 4096) for name in names] and None
    )
    time.sleep(1.2)  # what the kernel believes of them is forgotten
    found["stats_per_second"] = rate(options.files, lambda: [name.stat() for name in names] and None)
    for name in [*names, large]:
        name.unlink()
    small.rmdir()
    return found


def main(words: list[str] | None = None) -> None:
    """Measure, print, and save."""
    options = parsed(words)
    rounds: dict[str, list[dict[str, float]]] = {"disk": [], "mount": []}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        with mounted(folder) as point:
            for _ in range(options.rounds):
                rounds["disk"].append(one_round(folder / "disk", options))
                rounds["mount"].append(one_round(point, options))
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.fsmount", *sys.argv[1:]]), "made": utc_text(),
        "machine": machine(), "rounds": rounds, "rows": {},
    }  # fmt: skip
    for what in rounds["disk"][0]:
        disk, mount = (statistics.median(one[what] for one in rounds[place]) for place in ("disk", "mount"))
        document["rows"][what] = {"disk": disk, "mount": mount, "ratio": mount / disk}
        sys.stdout.write(f"{what:24} disk {disk:10.0f}  mount {mount:10.0f}  ratio {mount / disk:.3f}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fsmount.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
