"""Processes that find each other by their environment, as the pods of a Kubernetes Indexed Job do, without MPI."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.loopback import free_ports

from stoker.bench.run.hosts.sources import local_name
from stoker.core.plan import DatasetSpec
from stoker.core.result import Result, load_result
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

STOKER = Path(sys.executable).with_name("stoker")
TRAINING = ["--model", "unet3d", "--accelerator", "h100:5", "--batch-size", "2", "--computation-time", "5ms"]
TOKEN = "a-secret-of-the-job"
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dataset") / "data"
    store = open_store(str(folder), create=True)
    generate(store, DatasetSpec(format="npz", files=100, record_length_bytes=4096.0))
    store.close()
    return str(folder)


class Pods:
    """Two pods on this host, with five ranks together."""

    def __init__(self, folder: Path, dataset: str, *words: str, **changes: str) -> None:
        self.folder = folder
        (port,) = free_ports(1)
        base = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI_", "SLURM_"))}
        self.environment = {
            **base,
            "STOKER_CONDUCTOR": f"127.0.0.1:{port}",
            "STOKER_MEMBERS": "2",
            "STOKER_RANKS": "5",
            "STOKER_MEETING_TOKEN": TOKEN,
            "NO_COLOR": "1",
            **changes,
        }
        self.words = ["run", "training", dataset, *TRAINING, "--results", "results", "--host-interval", "0.2", *words]
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, index: int) -> None:
        self.processes[index] = subprocess.Popen(
            [str(STOKER), *self.words],
            cwd=self.folder,
            env={**self.environment, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, index: int, seconds: float = 60) -> tuple[int, str]:
        _, errors = self.processes[index].communicate(timeout=seconds)
        return self.processes[index].returncode, errors

    def pids(self) -> dict[int, int]:
        """Return the processes of the ranks once all have begun."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = {}
            for process in self.processes.values():
                assert process.poll() is None, process.communicate()
                for child in psutil.Process(process.pid).children():
                    words = child.cmdline()
                    if "stoker.bench.run.tcp_rank" in words:
                        found[int(words[words.index("stoker.bench.run.tcp_rank") + 1])] = child.pid
            events = [path.read_text() for path in self.folder.glob("results/*/events.jsonl")]
            if len(found) == 5 and any("phase_seen" in text for text in events):
                return found
            time.sleep(0.1)
        raise AssertionError("the ranks did not begin")

    def result(self) -> Result:
        (folder,) = (self.folder / "results").iterdir()
        return load_result(folder)


@pytest.fixture
def pods(tmp_path: Path, dataset: str) -> Iterator[type[Pods]]:
    made: list[Pods] = []

    def make(*words: str, **changes: str) -> Pods:
        made.append(Pods(tmp_path, dataset, *words, **changes))
        return made[-1]

    yield make  # type: ignore[misc]
    for process in [process for each in made for process in each.processes.values()]:
        if process.poll() is None:
            for member in [*psutil.Process(process.pid).children(recursive=True), process]:
                member.kill()
            process.communicate()


def test_ranks_of_two_pods_make_one_result(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods("--epochs", "2")
    both.start(1)  # the others may be there before the conductor
    both.start(0)
    code, errors = both.end(0)
    assert code in (0, 3), errors
    assert both.end(1)[0] == 0
    result = both.result()
    assert (result.status, [rank.rank for rank in result.ranks]) == ("complete", [0, 1, 2, 3, 4])
    assert [(epoch.samples, epoch.coverage_exact) for epoch in result.epochs] == [(100, True)] * 2
    assert any(note == "launcher: tcp, 5 ranks of 2 processes (JOB_COMPLETION_INDEX=0)" for note in result.notes)
    hosts = {host.host: host for host in result.hosts}
    assert set(hosts) == {local_name(), f"{local_name()}#2"}
    other = hosts[f"{local_name()}#2"]
    assert other.source == "tcp" and other.samples >= 2
    assert TOKEN not in (both.folder / "results").rglob("result.json").__next__().read_text()


@pytest.mark.slow
def test_a_killed_rank_is_named_and_what_the_others_measured_is_kept(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods("--epochs", "1000000")
    both.start(0)
    both.start(1)
    pids = both.pids()
    os.kill(pids[4], signal.SIGKILL)
    code, _ = both.end(0)
    both.end(1)
    result = both.result()
    assert code == 1 and result.status == "failed"
    assert result.reason == f"rank 4 on {local_name()} (pid {pids[4]}) ended: its connection was closed"
    assert [rank.rank for rank in result.ranks] == [0, 1, 2, 3] and result.metrics.steps > 0


@pytest.mark.slow
def test_a_pod_that_hangs_is_named_within_the_deadline(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods("--epochs", "1000000", "--rank-deadline", "2s")
    both.start(0)
    both.start(1)
    pids = both.pids()
    os.kill(pids[3], signal.SIGSTOP)
    code, _ = both.end(0)
    both.processes[1].kill()
    both.end(1)
    assert code == 1
    assert f"rank 3 on {local_name()} (pid {pids[3]}) was not heard of for " in both.result().reason
    os.kill(pids[3], signal.SIGCONT)


@pytest.mark.slow
def test_a_signal_to_the_conductor_stops_all_at_one_step(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods("--epochs", "1000000")
    both.start(0)
    both.start(1)
    both.pids()
    both.processes[0].send_signal(signal.SIGTERM)
    assert both.end(0)[0] == 143
    assert both.end(1)[0] == 0
    result = both.result()
    assert (result.status, result.reason) == ("partial", "stopped by SIGTERM")
    assert len(result.ranks) == 5


def test_a_pod_that_never_comes_is_told(pods) -> None:  # type: ignore[no-untyped-def]
    alone = pods("--epochs", "1", STOKER_JOIN_SECONDS="2")
    alone.start(0)
    code, _ = alone.end(0)
    result = alone.result()
    assert code == 1 and result.status == "failed"
    assert "there came no rank 3; rank 4" in result.reason


def test_a_wrong_token_lets_nobody_in(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods("--epochs", "1", STOKER_JOIN_SECONDS="4")
    both.start(0)
    both.environment["STOKER_MEETING_TOKEN"] = "another-secret-altogether"
    both.start(1)
    code, errors = both.end(1)
    assert code == 1 and "conductor cannot be reached" in errors
    both.end(0)
    assert both.result().status == "failed"


def test_half_an_environment_is_refused_with_the_variable(pods) -> None:  # type: ignore[no-untyped-def]
    both = pods(STOKER_RANKS="many")
    both.start(0)
    code, errors = both.end(0)
    assert code == 2 and "STOKER_RANKS" in errors
    other = pods(STOKER_RANKS="4")
    other.start(0)
    code, errors = other.end(0)
    assert code == 2 and "another number of ranks" in errors
