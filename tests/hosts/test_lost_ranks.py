"""A rank that dies, hangs or is cut off is named with its host, the others stop, and what was measured is kept."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab import Lab
from test_many_hosts import LAUNCHERS, STOKER, TRAINING, hosts_of, told

from stoker.core.result import load_result

DEADLINE = "4s"
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
]


@pytest.fixture(autouse=True)
def nothing_is_left_anywhere(lab: Lab) -> Iterator[None]:
    """Whatever happens to a run, no host keeps a process of it, not even one that was cut off."""
    segments = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    for name in lab.names:
        lab.mend(name)
    deadline = time.monotonic() + 15
    while any(lab.pids(name) for name in lab.names) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = {name: [told(pid) for pid in lab.pids(name)] for name in lab.names}
    for path in set(Path("/dev/shm").glob("mpich_shm_*")) - segments:
        path.unlink(missing_ok=True)
    assert not any(left.values()), left


class Run:
    """A run of four ranks on two hosts that would last for ever."""

    def __init__(self, lab: Lab, dataset: str, folder: Path, own: list[str]) -> None:
        self.lab, self.folder = lab, folder
        where = ["--hosts", hosts_of(lab, 2, 2), "--accelerator", "h100", "--epochs", "1000000"]
        words = ["run", "training", dataset, *TRAINING, *where, "--rank-deadline", DEADLINE, *own]
        self.process = subprocess.Popen(
            [str(STOKER), *words, "--results", "results"],
            cwd=folder,
            env=lab.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def steps(self) -> dict[int, int]:
        """Wait until every rank has logged steps; return the process of each rank."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            logs = list(self.folder.glob("results/*/ranks/rank-*.jsonl"))
            if len(logs) == 4 and all('"steps"' in log.read_text() for log in logs):
                return {int(log.stem[5:]): pid_in(log.read_text()) for log in logs}
            time.sleep(0.1)
        raise AssertionError("the ranks took no step")

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the end; return exit code and stderr."""
        try:
            _, errors = self.process.communicate(timeout=seconds)
        finally:
            if self.process.poll() is None:
                for member in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                    member.kill()
                self.process.communicate()
        return self.process.returncode, errors

    def result(self):  # type: ignore[no-untyped-def]
        """Return the saved result."""
        (folder,) = (self.folder / "results").iterdir()
        return load_result(folder)


def pid_in(log: str) -> int:
    return int(log.partition('"pid":')[2].partition(",")[0])


@pytest.mark.parametrize("own", LAUNCHERS)
def test_a_killed_rank_is_named_with_its_host(lab: Lab, dataset: str, tmp_path: Path, own: list[str]) -> None:
    run = Run(lab, dataset, tmp_path, own)
    pids = run.steps()
    os.kill(pids[3], signal.SIGKILL)
    code, errors = run.end()
    assert code not in (0, 3)
    result = run.result()
    if f"PID {pids[3]} RUNNING AT {lab.names[1]}" in errors and result.status == "partial":
        pass  # Hydra was faster: it ended rank 0 before that had noticed, and named the rank itself
    else:
        assert f"rank 3 on {lab.names[1]} (pid {pids[3]})" in errors
        assert result.status == "failed" and f"rank 3 on {lab.names[1]}" in result.reason
    assert result.metrics.steps > 0 and len(result.ranks) == 4


@pytest.mark.slow
def test_a_stopped_rank_is_named_within_the_deadline(lab: Lab, dataset: str, tmp_path: Path) -> None:
    run = Run(lab, dataset, tmp_path, [])
    pids = run.steps()
    os.kill(pids[2], signal.SIGSTOP)
    code, errors = run.end()
    assert code not in (0, 3)
    assert f"rank 2 on {lab.names[1]} (pid {pids[2]}) was not heard of for " in errors
    assert run.result().status == "failed"


@pytest.mark.slow
def test_a_host_that_is_cut_off_is_named_and_keeps_nothing_running(lab: Lab, dataset: str, tmp_path: Path) -> None:
    run = Run(lab, dataset, tmp_path, [])
    run.steps()
    lab.cut(lab.names[1])
    code, errors = run.end(90)
    assert code not in (0, 3)
    assert f"on {lab.names[1]} (pid " in errors and "was not heard of for " in errors
    result = run.result()
    assert result.status == "failed" and lab.names[1] in result.reason


@pytest.mark.slow
def test_the_first_host_may_be_cut_off_as_well(lab: Lab, dataset: str, tmp_path: Path) -> None:
    run = Run(lab, dataset, tmp_path, [])
    run.steps()
    lab.cut(lab.names[0])
    code, errors = run.end(90)
    assert code not in (0, 3)
    assert "the run ended before its time" in errors
    assert run.result().status in ("failed", "partial")


@pytest.mark.slow
@pytest.mark.parametrize("own", LAUNCHERS)
def test_a_signal_ends_all_ranks_with_a_partial_result(lab: Lab, dataset: str, tmp_path: Path, own: list[str]) -> None:
    run = Run(lab, dataset, tmp_path, own)
    run.steps()
    run.process.send_signal(signal.SIGINT)
    code, errors = run.end()
    result = run.result()
    assert (result.status, result.reason[:14]) == ("partial", "stopped by SIG"), errors  # Open MPI makes it a SIGTERM
    assert code == 130


@pytest.mark.slow
def test_who_started_the_ranks_may_be_killed(lab: Lab, dataset: str, tmp_path: Path) -> None:
    run = Run(lab, dataset, tmp_path, [])
    run.steps()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.communicate(timeout=30)
    assert sys.executable  # the fixture sees to it that nothing is left
