"""Ranks that meet over TCP on hosts with networks of their own: one is cut off."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab

from stoker.core.plan import DatasetSpec
from stoker.core.result import load_result
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

pytestmark = [pytest.mark.server, pytest.mark.slow]
STOKER = str(Path(sys.executable).with_name("stoker"))
TRAINING = ["--model", "unet3d", "--accelerator", "h100:4", "--batch-size", "2", "--computation-time", "5ms"]
ENDLESS = ["--epochs", "1000000", "--rank-deadline", "3s", "--results", "results", "--host-interval", "0.5"]


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a pod on each of two hosts."""
    store = open_store(str(tmp_path / "data"), create=True)
    generate(store, DatasetSpec(format="npz", files=96, record_length_bytes=4096.0))
    store.close()
    words = [STOKER, "run", "training", str(tmp_path / "data"), *TRAINING, *ENDLESS]
    started = []
    for index, name in enumerate(lab.names[:2]):
        environment = {
            **lab.environment(),
            "STOKER_CONDUCTOR": f"{lab.address[lab.names[0]]}:29420",
            "STOKER_MEMBERS": "2",
            "STOKER_RANKS": "4",
            "STOKER_MEETING_TOKEN": "a-secret-of-the-job",
            "JOB_COMPLETION_INDEX": str(index),
        }
        enter = ["nsenter", "-t", str(lab.servers[name].pid), "-n", "-u"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([*enter, *words], cwd=tmp_path, env=environment, text=True, **pipes))
    yield started
    for name in lab.names:
        lab.mend(name)
    for process in started:
        process.kill()
        process.communicate()


def test_a_host_that_is_cut_off_is_named_and_ends_by_itself(
    lab: Lab, running: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        "phase_seen" in path.read_text() for path in tmp_path.glob("results/*/events.jsonl")
    ):
        assert all(process.poll() is None for process in running), [process.communicate() for process in running]
        time.sleep(0.1)
    lab.cut(lab.names[1])
    out, errors = running[0].communicate(timeout=60)
    assert running[0].returncode == 1, (out, errors)
    running[1].communicate(timeout=60)
    assert running[1].returncode == 1
    (folder,) = (tmp_path / "results").iterdir()
    result = load_result(folder)
    assert result.status == "failed"
    assert f"on {lab.names[1]} (pid " in result.reason and "was not heard of for " in result.reason
    assert [rank.host for rank in result.ranks] == [lab.names[0]] * 2 and result.metrics.steps > 0
    assert not lab.pids(lab.names[0]) and not lab.pids(lab.names[1])
