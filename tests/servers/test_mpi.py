"""Ranks under a real mpiexec: the one beside this interpreter."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stoker.bench.run.recover import load_or_recover
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.core.result import load_result
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

MPIEXEC = Path(sys.executable).with_name("mpiexec")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec beside the interpreter"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
]
SPEC = DatasetSpec(format="npz", files=48, record_length_bytes=4096.0)
PROGRAM = """
import sys
from pathlib import Path
import msgspec
from stoker.bench.run.conduct import conduct
from stoker.bench.run.launch_mpi import detect
from stoker.core.errors import StokerError
from stoker.core.plan import Job, TrainingPlan

folder = Path(sys.argv[3]) / f"run-of-{detect().rank}"
folder.mkdir()
try:
    result = conduct(Job("run training"), msgspec.json.decode(sys.argv[1], type=TrainingPlan), sys.argv[2], folder)
except StokerError as error:
    sys.exit(f"refused: {error}")
(Path(sys.argv[3]) / f"told-by-{detect().rank}").write_text(f"{result.status}|{result.id}")
"""


@pytest.fixture(autouse=True)
def no_segment_is_left() -> Iterator[None]:
    """Remove the shared memory that MPICH leaves behind when it aborts; nothing that a process still maps."""
    before = segments()
    yield
    for name in segments() - before:
        deadline = time.monotonic() + 5
        while mapped(name) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not mapped(name):
            (Path("/dev/shm") / name).unlink(missing_ok=True)


def mapped(name: str) -> bool:
    return any(name in readable(path) for path in Path("/proc").glob("[0-9]*/maps"))


def segments() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("mpich_shm_*")}


def readable(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dataset") / "data"
    store = open_store(str(folder), create=True)
    generate(store, SPEC)
    store.close()
    return str(folder)


def plan(**changes: object) -> TrainingPlan:
    values = {"model": "test", "dataset": SPEC, "ranks": 2, "batch_size": 2, "epochs": 2, "launcher": "auto", **changes}
    return TrainingPlan(computation=Spread(parameters={"value": 0.002}), **values)


def start(planned: TrainingPlan, url: str, folder: Path) -> subprocess.Popen[str]:
    words = [msgspec.json.encode(planned).decode(), url, str(folder)]
    command = [str(MPIEXEC), "-n", "2", sys.executable, "-c", PROGRAM, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_steps(log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if log.exists() and '"steps"' in log.read_text():
            return
        time.sleep(0.05)
    raise AssertionError("no step was taken")


def test_ranks_of_mpi_make_one_result(dataset: str, tmp_path: Path) -> None:
    _, errors = start(plan(), dataset, tmp_path).communicate(timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-of-0", "told-by-0", "told-by-1"], errors
    result = load_result(tmp_path / "run-of-0")
    told = {(tmp_path / f"told-by-{rank}").read_text() for rank in (0, 1)}
    assert told == {f"complete|{result.id}"}
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert [(epoch.samples, epoch.coverage_exact) for epoch in result.epochs] == [(48, True)] * 2
    assert result.evidence.ledger.delivered_bytes == 2 * 48 * 4096
    assert result.notes[0].startswith("launcher: mpi, 2 ranks (PMI_SIZE=2), ")


def test_an_error_on_one_rank_ends_all_with_its_reason(tmp_path: Path) -> None:
    url = tmp_path / "data"
    store = open_store(str(url), create=True)
    generate(store, SPEC)
    store.close()
    (url / "train" / "img_42_of_48.npz").write_bytes(b"no archive")  # sequential, batch 2: the second rank's
    process = start(plan(order="sequential", epochs=1), str(url), tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stoker: rank 1: " in errors
    assert "img_42_of_48" in errors
    result = load_or_recover(tmp_path / "run-of-0")
    assert result.status == "failed"
    assert result.reason.startswith("rank 1: ")
    assert "img_42_of_48" in result.reason


def test_another_number_of_ranks_than_planned_is_refused(dataset: str, tmp_path: Path) -> None:
    process = start(plan(ranks=3), dataset, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "mpirun -n 3" in errors


def test_the_result_of_another_run_is_never_touched(dataset: str, tmp_path: Path) -> None:
    earlier = tmp_path / "run-of-0" / "result.json"
    program = PROGRAM.replace("folder.mkdir()", "folder.mkdir(exist_ok=True)")
    earlier.parent.mkdir()
    earlier.write_text("{}")
    words = [msgspec.json.encode(plan()).decode(), dataset, str(tmp_path)]
    command = [str(MPIEXEC), "-n", "2", sys.executable, "-c", program, *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "holds a run already" in ended.stderr
    assert earlier.read_text() == "{}"


def test_local_ranks_under_mpiexec_are_refused(dataset: str, tmp_path: Path) -> None:
    process = start(plan(launcher="local"), dataset, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "local ranks under an MPI launcher" in errors


def test_ctrl_c_to_mpiexec_leaves_a_partial_result(dataset: str, tmp_path: Path) -> None:
    process = start(plan(epochs=1_000_000), dataset, tmp_path)
    folder = tmp_path / "run-of-0"
    wait_for_steps(folder / "ranks" / "rank-0000.jsonl")
    wait_for_steps(folder / "ranks" / "rank-0001.jsonl")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    result = load_or_recover(folder)
    assert (result.status, result.reason) == ("partial", "stopped by SIGINT")
    assert result.metrics.steps > 0
    assert json.loads((folder / "result.json").read_text())["status"] == "partial"
