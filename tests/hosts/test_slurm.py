"""Under a real Slurm: ranks by MPI, processes that meet over TCP, a batch script that is no step, and a killed task."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import slurm as cluster
from benchmarks.loopback import free_ports

from stoker.core.result import Result, load_result

pytestmark = [pytest.mark.server, pytest.mark.slow]
STOKER = str(Path(sys.executable).with_name("stoker"))
TRAINING = ["--model", "unet3d", "--accelerator", "h100:8", "--batch-size", "2", "--computation-time", "5ms"]
SHORT = ["--epochs", "1", "--steps", "4", "--host-interval", "0.5"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[cluster.Slurm]:
    """A cluster of two nodes."""
    reason = cluster.missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    made = cluster.Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def only_result(folder: Path) -> Result:
    """Return the result of the one run that was kept."""
    (found,) = folder.glob("*/result.json")
    return load_result(found)


def meeting() -> dict[str, str]:
    """Return the variables by which a process on each node finds the others."""
    return {
        "STOKER_CONDUCTOR": f"127.0.0.1:{free_ports(1)[0]}",
        "STOKER_MEMBERS": "2",
        "STOKER_RANKS": "8",
        "STOKER_MEETING_TOKEN": "a-secret-of-the-job",
    }


def test_a_step_of_slurm_starts_eight_ranks_by_mpi(slurm: cluster.Slurm, dataset: str, tmp_path: Path) -> None:
    words = [STOKER, "run", "training", dataset, *TRAINING, *SHORT, "--results", str(tmp_path / "results")]
    done = slurm.run("srun", "--mpi=pmi2", "-N2", "-n8", *words)
    result = only_result(tmp_path / "results")
    assert result.status == "complete", done.stderr
    assert len(result.ranks) == 8
    assert "launcher: mpi, 8 ranks" in done.stdout


def test_one_process_a_node_meets_the_other_over_tcp(slurm: cluster.Slurm, dataset: str, tmp_path: Path) -> None:
    words = [STOKER, "run", "training", dataset, *TRAINING, *SHORT, "--results", str(tmp_path / "results")]
    done = slurm.run("srun", "-N2", "--ntasks-per-node=1", *words, **meeting())
    result = only_result(tmp_path / "results")
    assert result.status == "complete", done.stderr
    assert len(result.ranks) == 8
    assert "launcher: tcp, 8 ranks of 2 processes (SLURM_PROCID=0)" in done.stdout


def test_the_variables_of_a_batch_script_start_no_ranks_of_mpi(
    slurm: cluster.Slurm, dataset: str, tmp_path: Path
) -> None:
    """A batch script has SLURM_NTASKS and SLURM_PROCID, and is one process: its ranks are processes of its own."""
    words = [STOKER, "run", "training", dataset, *TRAINING, *SHORT, "--results", str(tmp_path / "results")]
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nenv | grep ^SLURM_NTASKS\n" + " ".join(words) + "\n")
    done = slurm.run("sbatch", "--wait", "-N2", "-n8", f"--output={tmp_path}/job.log", str(script))
    log = (tmp_path / "job.log").read_text()
    assert "SLURM_NTASKS=8" in log, done.stderr
    result = only_result(tmp_path / "results")
    assert (result.status, len(result.ranks)) == ("complete", 8), log
    assert "launcher: mpi" not in log


def _tasks(node: str) -> list[int]:
    """Return the processes of `stoker` that Slurm started on a node, the ranks below them too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            there = f"SLURMD_NODENAME={node}".encode() in path.read_bytes().split(b"\0")
            if there and b"stoker" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
    return found


def test_a_killed_task_is_named_and_the_others_end(slurm: cluster.Slurm, dataset: str, tmp_path: Path) -> None:
    endless = ["--epochs", "1000000", "--rank-deadline", "3s", "--host-interval", "0.5"]
    words = [STOKER, "run", "training", dataset, *TRAINING, *endless, "--results", str(tmp_path / "results")]
    step = ["srun", "-N2", "--ntasks-per-node=1", "--kill-on-bad-exit=0", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(step, env={**slurm.environment, **meeting()}, text=True, **pipes)
    try:
        deadline = time.monotonic() + 60
        while not any("phase_seen" in path.read_text() for path in tmp_path.glob("results/*/events.jsonl")):
            assert time.monotonic() < deadline and running.poll() is None, running.communicate()
            time.sleep(0.1)
        for task in _tasks("n1"):
            with suppress(ProcessLookupError):
                os.kill(task, signal.SIGKILL)
        told = "".join(running.communicate(timeout=60))
    finally:
        running.kill()
        running.communicate()
    result = only_result(tmp_path / "results")
    assert result.status in ("failed", "partial")
    assert "rank" in result.reason and os.uname().nodename in result.reason, (result.reason, told)
    deadline = time.monotonic() + 20
    while _tasks("n0") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _tasks("n0")
