"""What does an epoch cost? Our loader beside its ceiling (the same loader on a RAM store) and a plain loop.

The question: how fast are cached files delivered as arrays, and with how much CPU, at an equal number of workers?
The files lie in the page cache on purpose: this measures the client, not the device.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.harness import Contender, Turn, race, save, table
from stoker.bench.workloads.source import dataset_manifest
from stoker.core.plan import DatasetSpec
from stoker.core.units import MiB, parse_bytes
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.loader import Loader, LoaderOptions
from stoker.storage.opening import open_store

CASES = {
    "npz 1 MiB": ("npz", 1 * MiB, 256),
    "npz 100 KiB": ("npz", 100 * 1024, 2000),
    "hdf5 1 MiB": ("hdf5", 1 * MiB, 256),
}


@dataclass(frozen=True)
class Share:
    """One worker process's part of an epoch: through our loader from `url`, or a plain loop over `paths`."""

    rank: int
    workers: int
    url: str = ""
    spec: DatasetSpec | None = None
    paths: tuple[str, ...] = ()


def stoker_share(share: Share) -> tuple[int, int, float]:
    """Deliver a rank's share of an epoch through our loader; return payload bytes, samples and CPU seconds."""
    cpu_start = time.process_time()
    assert share.spec is not None
    store = open_store(share.url)
    manifest = dataset_manifest(store, share.spec)
    options = LoaderOptions(batch_size=4, read_threads=2, decode_threads=1)
    payload_bytes = samples = 0
    with Loader(store, manifest, options, rank=share.rank, world_size=share.workers) as loader:
        for batch in loader.epoch(1):
            payload_bytes += batch.payload_bytes
            samples += len(batch.samples)
    store.close()
    return payload_bytes, samples, time.process_time() - cpu_start


def npz_share(share: Share) -> tuple[int, int, float]:
    """Load files with np.load, as a user without a loader would."""
    cpu_start, payload_bytes = time.process_time(), 0
    for path in share.paths:
        with np.load(path, allow_pickle=False) as archive:
            payload_bytes += int(archive["x"].nbytes)
    return payload_bytes, len(share.paths), time.process_time() - cpu_start


def hdf5_share(share: Share) -> tuple[int, int, float]:
    """Load files with h5py, as a user without a loader would."""
    cpu_start, payload_bytes = time.process_time(), 0
    for path in share.paths:
        with h5py.File(path) as file:
            payload_bytes += int(file["records_0"][:].nbytes)
    return payload_bytes, len(share.paths), time.process_time() - cpu_start


def contender(name: str, pool: Any, work: Callable[[Share], tuple[int, int, float]], shares: list[Share]) -> Contender:
    """Return the contender whose turn is `work` on every share at once, a process each."""

    def turn() -> Turn:
        parts = pool.map(work, shares, chunksize=1)
        return Turn(*(sum(column) for column in zip(*parts, strict=True)))

    return Contender(name, turn)


def run_case(name: str, folder: Path, workers: int, rounds: int) -> list[Contender]:
    """Generate the case's dataset and race the contenders, each with `workers` processes."""
    format_name, record_bytes, files = CASES[name]
    spec = DatasetSpec(format_name, files, record_length_bytes=record_bytes)
    generate(open_store(f"file://{folder}?fsync=none", create=True), spec, GenerateOptions())
    paths = sorted(str(path) for path in folder.glob(f"train/*.{format_name}"))
    ranks = range(workers)
    on_files = [Share(rank, workers, f"file://{folder}", spec) for rank in ranks]
    in_ram = [Share(rank, workers, f"null://?template={paths[0]}", spec) for rank in ranks]
    plain = [Share(rank, workers, paths=tuple(paths[rank::workers])) for rank in ranks]
    library, work = ("np.load", npz_share) if format_name == "npz" else ("h5py", hdf5_share)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        contenders = [
            contender("ceiling: stoker on RAM", pool, stoker_share, in_ram),
            contender("stoker on files", pool, stoker_share, on_files),
            contender(f"{library} loop", pool, work, plain),
        ]
        race(contenders, rounds)
    return contenders


def main() -> None:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for the datasets; a temporary one when not given")
    parser.add_argument("--space", type=parse_bytes, default=2048 * MiB, help="free space to insist on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.scratch, prefix="stoker-bench-"))
    assert shutil.disk_usage(scratch).free > options.space, "not enough free space for the datasets"
    try:
        tables = {}
        for number, name in enumerate(CASES):
            tables[name] = run_case(name, scratch / str(number), options.workers, options.rounds)
        text = "\n".join(table(name, racers, ceiling=racers[0].name) for name, racers in tables.items())
        print(text)
        command = f"python -m benchmarks.loader --workers {options.workers} --rounds {options.rounds}"
        save(options.out, "loader", command, tables, text)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
