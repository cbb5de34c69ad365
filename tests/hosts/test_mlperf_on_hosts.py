"""`stoker mlperf` on three hosts: each rank makes its share of the dataset, and a run keeps one leaf of all of them."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from stoker.bench.run.mlperf.results_dir import initialise

STOKER = Path(sys.executable).with_name("stoker")
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SERIES = ("mlperf", "whatif", "training", "cosmoflow")
FILES = ("-p", "dataset.num_files_train=24", "-aip", "--skip-fs-separation-gate", "--mpi-bin", "mpiexec")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
    pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec; pip install 'stoker[mpi]'"),
]


@pytest.fixture(autouse=True)
def no_mpich_segments_stay() -> Iterator[None]:
    before = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    for path in set(Path("/dev/shm").glob("mpich_shm_*")) - before:
        path.unlink(missing_ok=True)


def stoker(lab: Lab, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "MLPSTORAGE_RESULTS_DIR": str(folder / "results"),
        "MLPSTORAGE_SYSTEMNAME": "sysA",
        "MLPSTORAGE_DATA_DIR": str(folder / "data"),
        "PATH": f"{STOKER.parent}:{os.environ['PATH']}",
    }
    environment = {**lab.environment(), **variables}
    done = subprocess.run(
        [str(STOKER), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done


def metadata(leaf: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((leaf / f"training_{leaf.name}_metadata.json").read_text())
    return found


def test_a_dataset_and_a_run_on_three_hosts(lab: Lab, tmp_path: Path) -> None:
    initialise(tmp_path / "results", "acme")
    made = stoker(lab, tmp_path, *SERIES, "datagen", "file", "-np", "6", "--hosts", *lab.names, *FILES)
    assert "24 files made by 6 ranks" in made.stdout
    assert len(list((tmp_path / "data/cosmoflow/train").rglob("*.tfrecord"))) == 24
    again = stoker(lab, tmp_path, *SERIES, "datagen", "file", "-np", "3", "--hosts", *lab.names, *FILES)
    assert "0 files made by 3 ranks, 24 were there" in again.stdout
    hosts = [f"{name}:1" for name in lab.names]
    stoker(lab, tmp_path, *SERIES, "run", "file", "-na", "3", "-at", "a100", "-cm", "1", "--hosts", *hosts, *FILES)
    (leaf,) = (tmp_path / "results/whatif/acme/results/sysA/training/cosmoflow/run").iterdir()
    told = metadata(leaf)
    assert (told["exit_status"], told["status"], told["num_processes"]) == (0, "complete", 3)
    assert told["args"]["hosts"] == hosts
    assert "mpiexec -n 3" in told["executed_command"]
    assert {host["hostname"] for host in told["system_info"]["hosts"]} == set(lab.names)
    assert len(list(leaf.glob("*_output.json"))) == 3
    assert json.loads((leaf / "summary.json").read_text())["num_hosts"] == 3
