"""DLIO with its own PyTorch loader, as a contender: stock, run by another interpreter, nothing computed.

What a turn counts is all steps of each epoch but one: the CPU of all its processes and the time of its epochs, less
those of a run of the same number of epochs with one step each. What remains is the reading of the other samples. Its
start-up varies by half a second of CPU, so it reads more epochs than the others.
"""

import json
import os
import resource
import statistics
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import PeerError, Turn
from stoker.core.plan import DatasetSpec

STARTS = 2
TRAIN_SECONDS_MAX = 600


class Spent(NamedTuple):
    """What a run took: CPU seconds of all processes, seconds of its epochs."""

    cpu_seconds: float
    wall_seconds: float


@dataclass
class Dlio:
    """DLIO reading the dataset of `spec` in `folder` (its parent takes the output)."""

    python: str
    folder: Path
    spec: DatasetSpec
    batch_size: int
    epochs: int
    workers: int
    sample_bytes: float
    starts: list[Spent] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Return the steps of an epoch."""
        return self.spec.samples // self.batch_size

    def words(self, files: int) -> list[str]:
        """Return the configuration for the first `files` files."""
        spec = self.spec
        sections: dict[str, dict[str, object]] = {
            "dataset": {
                "format": spec.format,
                "data_folder": str(self.folder),
                "num_files_train": files,
                "num_files_eval": 0,
                "num_samples_per_file": spec.samples_per_file,
                "record_length_bytes": int(spec.record_length_bytes),
                "num_subfolders_train": 0,
                "num_subfolders_eval": 0,
            },
            "reader": {"batch_size": self.batch_size, "read_threads": self.workers, "prefetch_size": 2},
            "train": {"epochs": self.epochs, "computation_time": 0.0},
            "workflow": {"generate_data": False, "train": True, "evaluation": False, "checkpoint": False},
        }
        return [f"++workload.{name}.{key}={value}" for name, part in sections.items() for key, value in part.items()]

    def train(self, files: int) -> float:
        """Train on the first `files` files; return the CPU seconds of all its processes. Raises PeerError."""
        (self.folder / "valid").mkdir(exist_ok=True)  # DLIO lists both splits
        output = self.folder.parent / "dlio"
        output.mkdir(exist_ok=True)
        command = [self.python, "-m", "dlio_benchmark.main", "workload=default", f"++hydra.run.dir={output}"]
        environment = {**os.environ, "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"}
        before = _children_cpu_seconds()
        how: dict[str, Any] = {"cwd": output, "env": environment, "timeout": TRAIN_SECONDS_MAX}
        try:
            done = subprocess.run([*command, *self.words(files)], check=False, capture_output=True, text=True, **how)
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"DLIO took more than {TRAIN_SECONDS_MAX} s") from error
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["no output"]
            raise PeerError(f"DLIO ended with {done.returncode}: {words[-1]}")
        return _children_cpu_seconds() - before

    def measured(self, files: int) -> Spent:
        """Train on the first `files` files; return what the processes and the epochs took."""
        cpu_seconds = self.train(files)
        stats = json.loads((self.folder.parent / "dlio/0_per_epoch_stats.json").read_text())
        blocks = [stats[str(epoch)]["block1"] for epoch in range(1, self.epochs + 1)]
        walls = [datetime.fromisoformat(block["end"]) - datetime.fromisoformat(block["start"]) for block in blocks]
        return Spent(cpu_seconds, sum(wall.total_seconds() for wall in walls))

    def turn(self) -> Turn:
        """Train for the epochs; what counts is in the files DLIO leaves."""
        while len(self.starts) < STARTS:
            self.starts.append(self.measured(self.batch_size))
        whole = self.measured(self.steps * self.batch_size)
        cpu_seconds = whole.cpu_seconds - statistics.median(start.cpu_seconds for start in self.starts)
        wall_seconds = whole.wall_seconds - statistics.median(start.wall_seconds for start in self.starts)
        samples = self.epochs * (self.steps - 1) * self.batch_size
        return Turn(round(samples * self.sample_bytes), samples, max(cpu_seconds, 0.01), max(wall_seconds, 0.01))


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
