"""The command line under a real mpiexec: rank 0 speaks, writes and decides; the others follow it and end as it ends."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from stoker.core.plan import DatasetSpec
from stoker.core.result import load_result
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

MPIEXEC = Path(sys.executable).with_name("mpiexec")
STOKER = Path(sys.executable).with_name("stoker")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not MPIEXEC.exists(), reason="no mpiexec beside the interpreter; run: pip install 'stoker[mpi]'"
    ),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
]
WORKLOAD = {
    "model": {"name": "tiny"},
    "framework": "pytorch",
    "workflow": {"generate_data": True, "train": True},
    "dataset": {"data_folder": "data", "format": "npz", "num_files_train": 48, "record_length_bytes": 4096},
    "reader": {"data_loader": "pytorch", "batch_size": 2, "read_threads": 1},
    "train": {"epochs": 2, "computation_time": 0.005},
}
TRAINING = ["--model", "unet3d", "--accelerator", "h100:2", "--batch-size", "2", "--computation-time", "0.005"]
DLIO = ["dlio", "workload=mine", "++hydra.run.dir=out", "++hydra.output_subdir=dlio_config", "--config-dir=conf"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `stoker` with these words on two ranks."""
    command = [str(MPIEXEC), "-n", "2", str(STOKER), *words]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, start_new_session=True, **pipes)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end; return exit code, stdout and stderr. Should it not come, nothing is left running."""
    try:
        out, errors = process.communicate(timeout=40)
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            for member in [*family, process]:
                member.kill()
            process.communicate()
    return process.returncode, out, errors


def ended(folder: Path, *words: str) -> tuple[int, str, str]:
    """Run `stoker` on two ranks to its end; return exit code, stdout and stderr."""
    return end(start(folder, *words))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the workload `mine` in `conf`."""
    file = tmp_path / "conf/workload/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(WORKLOAD))
    return tmp_path


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Generate a dataset and return its URL."""
    store = open_store(str(tmp_path / "data"), create=True)
    generate(store, DatasetSpec(format="npz", files=48, record_length_bytes=4096.0))
    store.close()
    return str(tmp_path / "data")


def test_dlio_generates_once_trains_on_every_rank_and_tells_once(place: Path) -> None:
    code, out, errors = ended(place, *DLIO, "--json")
    assert code in (0, 3), errors
    document = json.loads(out)
    assert document["status"] == "complete" and document["exit_code"] == code
    names = sorted(file.name for file in (place / "out").iterdir())
    assert names == sorted(
        ["stoker", "summary.json", "dlio.log", "dlio_config"]
        + [f"{rank}_{kind}.json" for rank in (0, 1) for kind in ("output", "per_epoch_stats")]
    )
    assert json.loads((place / "out/summary.json").read_text())["num_accelerators"] == 2
    result = load_result(place / "out/stoker")
    assert [(epoch.steps, epoch.samples, epoch.coverage_exact) for epoch in result.epochs] == [(12, 48, True)] * 2
    assert any(note.startswith("launcher: mpi, 2 ranks") for note in result.notes)


def test_a_sweep_runs_every_combination_on_all_ranks(place: Path) -> None:
    words = ["-m", "++workload.reader.batch_size=2,4", "++hydra.sweep.dir=sweep", "++workload.train.epochs=1"]
    code, out, errors = ended(place, *DLIO[:2], *words, "--config-dir=conf", "--quiet")
    assert code in (0, 3), errors
    assert out.count("report: ") == 2
    steps = [load_result(place / f"sweep/{number}/stoker").epochs[0].steps for number in (0, 1)]
    assert steps == [12, 6]


def test_training_on_all_ranks_leaves_one_folder_and_tells_once(place: Path, dataset: str) -> None:
    code, out, errors = ended(place, "run", "training", dataset, *TRAINING, "--epochs", "2", "--results", "results")
    assert code in (0, 3), errors
    assert out.count("report: ") == 1
    (folder,) = (place / "results").iterdir()
    result = load_result(folder)
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert {epoch.samples for epoch in result.epochs} == {48}


def test_a_mistake_is_told_once_and_ends_all_ranks_with_its_exit_code(place: Path) -> None:
    code, out, errors = ended(place, "dlio", "workload=nine", "--config-dir=conf", "--json")
    assert code == 2
    assert errors.count("stoker: ") == 1 and "'nine'" in errors
    assert json.loads(out)["error"]["exit_code"] == 2


def test_a_failure_on_rank_0_before_the_run_leaves_no_rank_waiting(place: Path) -> None:
    code, out, errors = ended(place, *DLIO, "++workload.workflow.generate_data=False")
    assert (code, out) == (5, "")
    assert errors.count("stoker: ") == 1 and "generate_data=True" in errors


def test_another_number_of_ranks_than_asked_for_is_refused(place: Path) -> None:
    code, _, errors = ended(place, *DLIO, "--ranks", "3")
    assert code == 2
    assert errors.count("stoker: ") == 1 and "--ranks" in errors


def test_a_dry_run_and_a_query_are_answered_once(place: Path) -> None:
    code, out, errors = ended(place, *DLIO, "--dry-run", "--json")
    assert code == 0, errors
    assert json.loads(out)["ranks"] == 2
    code, out, errors = ended(place, *DLIO, "++workload.workflow.query=reader.batch_size")
    assert (code, out) == (0, "2\n"), errors
    assert {file.name for file in place.iterdir()} == {"conf"}


def test_ctrl_c_while_rank_0_generates_ends_the_waiting_ranks(place: Path) -> None:
    process = start(place, *DLIO, "++workload.dataset.num_files_train=200000")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(place.glob("data/train/*"))) < 10:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, _, errors = end(process)
    assert code == 130, errors
    assert "Traceback" not in errors
    assert not (place / "out/summary.json").exists()


def test_ctrl_c_leaves_a_partial_result_and_no_process(place: Path, dataset: str) -> None:
    process = start(
        place, "run", "training", dataset, *TRAINING, "--epochs", "0", "--duration", "300", "--results", "r"
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(
        '"steps"' in log.read_text() for log in place.glob("r/*/ranks/rank-0001.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, _, errors = end(process)
    assert code != 0, errors
    (folder,) = (place / "r").iterdir()
    assert load_result(folder).status == "partial"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
