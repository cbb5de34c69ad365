"""Runs of real ranks, conducted here or by a process of their own that tests may shoot at."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stoker.bench.run.conduct import conduct
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

SPEC = DatasetSpec(format="npz", files=48, record_length_bytes=4096.0)
JOB = Job("run training")


def make_dataset(folder: Path) -> str:
    """Generate the dataset below `folder` and return its URL."""
    store = open_store(str(folder / "data"), create=True)
    try:
        generate(store, SPEC)
    finally:
        store.close()
    return str(folder / "data")


def plan(*, ranks: int = 2, seconds: float = 0.002, **changes: Any) -> TrainingPlan:
    """Return a plan of 2 samples a step and rank."""
    values: dict[str, Any] = {"model": "test", "dataset": SPEC, "batch_size": 2, "read_threads": 2, **changes}
    return TrainingPlan(ranks=ranks, computation=Spread(parameters={"value": seconds}), **values)


class Conductor:
    """A conductor in a process, and a session, of its own."""

    def __init__(self, planned: TrainingPlan, url: str, folder: Path) -> None:
        self.folder = folder
        words = [msgspec.json.encode(planned).decode(), url, str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def wait_for_steps(self, ranks: int = 2, seconds: float = 30) -> list[int]:
        """Wait until every rank has logged a step; return the ranks' process ids."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            logs = [self.folder / "ranks" / f"rank-{rank:04d}.jsonl" for rank in range(ranks)]
            found = [read_rank_log(log) for log in logs if log.exists()]
            told = [part for part in found if part is not None and len(part[1])]
            if len(told) == ranks:
                return [report.start.pid for report, _ in told]
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError("the ranks took no step")

    def signal(self, number: int) -> None:
        """Send a signal to the conductor alone."""
        self.process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the conductor's process group, as a scheduler does."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def end(self, seconds: float = 30) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        out, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, out.decode(), errors.decode()


def all_gone(pids: list[int], seconds: float = 10) -> bool:
    """Wait until none of the processes is left; zombies that init has not reaped yet count as gone."""
    return until(lambda: not any(_runs(pid) for pid in pids), seconds)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=TrainingPlan)
    ended = conduct(JOB, given, sys.argv[2], Path(sys.argv[3]))
    sys.stdout.write(f"{ended.status}|{ended.reason}")
