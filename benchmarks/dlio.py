"""What does an epoch of U-Net-3D-like samples cost DLIO with its PyTorch loader, and what does it cost ours?

The question: how fast do equal numbers of workers read the same cached NPZ files, and with how much CPU, when nothing
is computed? They do not do the same: DLIO's `np.load` copies each array and checks its CRC-32, then drops it and hands
one constant tensor on; ours hands on views of the samples, checked only where `verify` asks for it. The files lie in
the page cache on purpose: this measures the client, not the device. As DLIO does, the first step of each epoch is left
out of the rates: in it the workers start.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.harness import Contender, Turn, race, save, table
from stoker.bench.workloads.source import dataset_manifest
from stoker.core.plan import DatasetSpec
from stoker.core.units import MiB, parse_bytes
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.loader import Loader, LoaderOptions
from stoker.storage.opening import open_store

FILES = 64
RECORD_BYTES = 8 * MiB
RESIZED_BYTES = 2 * MiB  # what U-Net-3D's configuration has DLIO hand on for each sample
BATCH = 4
EPOCHS = 10  # enough that the reading costs more CPU than DLIO's start-up varies by
STARTS = 3
SPEC = DatasetSpec("npz", FILES, record_length_bytes=RECORD_BYTES)
VERSIONS = "from importlib.metadata import version as v; print('DLIO', v('dlio_benchmark'), 'torch', v('torch'))"


@dataclass
class Dlio:
    """DLIO in an environment of its own, run in `folder`; `start_cpu_seconds` is what it costs before any reading."""

    python: str
    folder: Path
    workers: int
    start_cpu_seconds: float = 0.0
    whole_epochs: list[float] = field(default_factory=list)

    def versions(self) -> str:
        """Return the versions of DLIO and of its loader's library."""
        return subprocess.check_output([self.python, "-c", VERSIONS], text=True).strip()

    def train(self, files: int) -> float:
        """Train on the first `files` files; return the CPU seconds of all its processes."""
        sections = {
            "dataset": {"format": "npz", "data_folder": "data", "num_files_train": files, "num_files_eval": 0},
            "reader": {"batch_size": BATCH, "read_threads": self.workers, "prefetch_size": 2},
            "train": {"epochs": EPOCHS, "computation_time": 0.0},
            "workflow": {"generate_data": False, "train": True, "evaluation": False, "checkpoint": False},
        }
        sections["dataset"] |= {"record_length_bytes": RECORD_BYTES, "record_length_bytes_resize": RESIZED_BYTES}
        sections["dataset"] |= {"num_subfolders_train": 0, "num_subfolders_eval": 0}
        words = [f"++workload.{name}.{key}={value}" for name, part in sections.items() for key, value in part.items()]
        command = [self.python, "-m", "dlio_benchmark.main", "workload=default", "++hydra.run.dir=out", *words]
        environment = {**os.environ, "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"}
        before = os.times()
        subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True, text=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def turn(self) -> Turn:
        """Train for the epochs; what counts is in the files DLIO leaves."""
        cpu_seconds = self.train(FILES) - self.start_cpu_seconds
        output = json.loads((self.folder / "out/0_output.json").read_text())
        stats = json.loads((self.folder / "out/0_per_epoch_stats.json").read_text())
        steady = whole = 0.0
        for epoch in map(str, range(1, EPOCHS + 1)):
            process, block = output[epoch]["proc"]["block1"], stats[epoch]["block1"]
            assert len(process) == FILES // BATCH
            start, end = (datetime.fromisoformat(block[name]) for name in ("start", "end"))
            whole += (end - start).total_seconds()
            steady += (end - start).total_seconds() - process[0]
        self.whole_epochs.append(whole)
        return steady_turn(steady, cpu_seconds)


def steady_turn(steady_seconds: float, cpu_seconds: float) -> Turn:
    """Return a turn of all steps but the first of each epoch; the CPU, which cannot be split, is cut in proportion."""
    steps = FILES // BATCH
    samples = EPOCHS * (steps - 1) * BATCH
    return Turn(samples * RECORD_BYTES, samples, cpu_seconds * (steps - 1) / steps, steady_seconds)


def stoker_turn(url: str, workers: int, whole_epochs: list[float]) -> Turn:
    """Deliver the epochs through our loader."""
    cpu_start = time.process_time()
    store = open_store(url)
    options = LoaderOptions(batch_size=BATCH, read_threads=workers, decode_threads=1, prefetch_batches=2, order="dlio")
    steady = whole = 0.0
    with Loader(store, dataset_manifest(store, SPEC), options) as loader:
        for epoch in range(1, EPOCHS + 1):
            start = time.perf_counter()
            batches = loader.epoch(epoch)
            assert len(next(batches).samples) == BATCH
            first = time.perf_counter()
            assert sum(len(batch.samples) for batch in batches) == FILES - BATCH
            end = time.perf_counter()
            steady, whole = steady + end - first, whole + end - start
    store.close()
    whole_epochs.append(whole)
    return steady_turn(steady, time.process_time() - cpu_start)


def read_files(paths: list[Path]) -> None:
    """Read files one after the other into the same buffer."""
    buffer = bytearray(2 * RECORD_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def reading_turn(folder: Path, workers: int) -> Turn:
    """Read the files and do nothing else: what the page cache and this many threads give at most."""
    paths = sorted(folder.glob("train/*.npz")) * EPOCHS
    cpu_start, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(read_files, [paths[worker::workers] for worker in range(workers)]))
    elapsed = time.perf_counter() - start
    return Turn(len(paths) * RECORD_BYTES, len(paths), time.process_time() - cpu_start, elapsed)


def compete(dlio: Dlio, workers: int, rounds: int) -> tuple[list[Contender], str]:
    """Make the dataset and race; return the contenders and what the table does not hold."""
    url = f"file://{dlio.folder}/data"
    store = open_store(f"{url}?fsync=none", create=True)
    generate(store, SPEC, GenerateOptions())
    store.close()
    (dlio.folder / "data/valid").mkdir(exist_ok=True)  # DLIO lists both splits
    dlio.start_cpu_seconds = statistics.median(dlio.train(BATCH) for _ in range(STARTS))
    ours: list[float] = []
    contenders = [
        Contender("ceiling: plain reads, nothing decoded", lambda: reading_turn(dlio.folder / "data", workers)),
        Contender("stoker", lambda: stoker_turn(url, workers, ours)),
        Contender("DLIO", dlio.turn),
    ]
    race(contenders, rounds)
    ratio = contenders[1].rate() / contenders[2].rate()
    cost = [statistics.median(entry.cpu_seconds for entry in contender.rounds) for contender in contenders[1:]]
    theirs = dlio.whole_epochs[1:]
    text = (
        f"Peer: {dlio.versions()}. Ours delivers {ratio:.1f} times DLIO's rate for {cost[1] / cost[0]:.1f} times less "
        f"CPU (of DLIO's, the {dlio.start_cpu_seconds:.1f} s of a run with one step an epoch are taken off). Whole "
        f"epochs, first steps included: ours {statistics.median(ours[1:]):.2f} s, DLIO "
        f"{statistics.median(theirs):.2f} s ({min(theirs):.2f} … {max(theirs):.2f}).\n"
    )
    return contenders, text


def main() -> None:
    """Run the race and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dlio-python", required=True, help="the Python of an environment in which DLIO is installed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for the dataset; a temporary one when not given")
    parser.add_argument("--space", type=parse_bytes, default=1024 * MiB, help="free space to insist on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=options.scratch, prefix="stoker-bench-"))
    assert shutil.disk_usage(scratch).free > options.space, "not enough free space for the dataset"
    try:
        contenders, told = compete(Dlio(options.dlio_python, scratch, options.workers), options.workers, options.rounds)
    finally:
        shutil.rmtree(scratch)
    title = f"{FILES} files of {RECORD_BYTES // MiB} MiB, batch {BATCH}, {EPOCHS} epochs, {options.workers} workers"
    text = table(title, contenders, ceiling=contenders[0].name) + "\n" + told
    print(text)
    command = f"python -m benchmarks.dlio --dlio-python PYTHON --workers {options.workers} --rounds {options.rounds}"
    save(options.out, "dlio", command, {title: contenders}, text)


if __name__ == "__main__":
    main()
