"""What does an epoch cost? Our loader beside its ceiling (the same loader on a RAM store) and a plain loop.

The question: how fast are cached files delivered as arrays, and with how much CPU, at an equal number of workers?
The files lie in the page cache on purpose: this measures the client, not the device.
"""

import argparse
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.harness import Contender, race, save, table
from stoker.core.plan import DatasetSpec
from stoker.core.units import MiB, parse_bytes
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.loader import Loader, LoaderOptions
from stoker.storage.api import Store
from stoker.storage.opening import open_store

CASES = {
    "npz 1 MiB": ("npz", 1 * MiB, 256),
    "npz 100 KiB": ("npz", 100 * 1024, 2000),
    "hdf5 1 MiB": ("hdf5", 1 * MiB, 256),
}


def stoker_epoch(store: Store, workers: int) -> tuple[int, int]:
    """Deliver one epoch through our loader."""
    manifest = open_manifest(store, "train")
    loader = Loader(store, manifest, LoaderOptions(batch_size=4, read_threads=workers, decode_threads=1))
    payload_bytes = samples = 0
    for batch in loader.epoch(1):
        payload_bytes += sum(int(sample.nbytes) for sample in batch.samples)
        samples += len(batch.samples)
    loader.close()
    return payload_bytes, samples


def load_npz(path: str) -> Any:
    """Load one file as a user without a loader would."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"]


def load_hdf5(path: str) -> Any:
    """Load one file as a user without a loader would."""
    with h5py.File(path) as file:
        return file["records_0"][:]


def loop(load: Callable[[str], Any], paths: list[str]) -> tuple[int, int]:
    """Load some files one after the other; return payload bytes and samples."""
    payload_bytes = sum(int(load(path).nbytes) for path in paths)
    return payload_bytes, len(paths)


def plain_epoch(load: Callable[[str], Any], paths: list[str], pool: Any, workers: int) -> tuple[int, int]:
    """Deliver one epoch by `workers` processes that each loop over their share (the arrays stay in the workers)."""
    parts = pool.starmap(loop, [(load, paths[worker::workers]) for worker in range(workers)])
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def run_case(name: str, folder: Path, workers: int, rounds: int) -> list[Contender]:
    """Generate the case's dataset on disk and in RAM, and race the contenders."""
    format_name, record_bytes, files = CASES[name]
    spec = DatasetSpec(format_name, files, record_length_bytes=record_bytes)
    disk, ram = open_store(f"file://{folder}?fsync=none", create=True), open_store(f"mem://{name.replace(' ', '-')}")
    for store in (disk, ram):
        generate(store, spec, GenerateOptions())
    paths = sorted(str(path) for path in folder.glob(f"train/*.{format_name}"))
    load = load_npz if format_name == "npz" else load_hdf5
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        contenders = [
            Contender("ceiling: stoker on RAM", lambda: stoker_epoch(ram, workers)),
            Contender("stoker on files", lambda: stoker_epoch(disk, workers)),
            Contender(f"{load.__name__} loop, {workers} processes", lambda: plain_epoch(load, paths, pool, workers)),
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
