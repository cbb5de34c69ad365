"""`stoker mlperf` on three hosts: each rank makes its share of the dataset, and a run keeps one leaf of all of them."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from test_many_hosts import open_mpi

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


def started(lab: Lab, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "MLPSTORAGE_RESULTS_DIR": str(folder / "results"),
        "MLPSTORAGE_SYSTEMNAME": "sysA",
        "MLPSTORAGE_DATA_DIR": str(folder / "data"),
        "PATH": f"{STOKER.parent}:{os.environ['PATH']}",
    }
    environment = {**lab.environment(), **variables, **more}
    return subprocess.run(
        [str(STOKER), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )


def stoker(lab: Lab, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    done = started(lab, folder, *words, **more)
    assert done.returncode == 0, done.stderr
    return done


def metadata(leaf: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((leaf / f"training_{leaf.name}_metadata.json").read_text())
    return found


@pytest.mark.slow
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


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "results/whatif/acme/results/sysA/training/cosmoflow/run").glob("*"))


RUN = ("run", "file", "-at", "a100", "-cm", "1")


@pytest.fixture
def ready(dataset_of_24: Path, tmp_path: Path) -> Path:
    """A results directory of the test's own, and the dataset that is there."""
    (tmp_path / "data").symlink_to(dataset_of_24)
    initialise(tmp_path / "results", "acme")
    return tmp_path


@pytest.fixture(scope="module")
def dataset_of_24(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    initialise(folder / "results", "acme")
    variables = {"MLPSTORAGE_RESULTS_DIR": str(folder / "results"), "MLPSTORAGE_SYSTEMNAME": "sysA"}
    words = (*SERIES, "datagen", "file", "-np", "1", "-dd", str(folder / "data"), *FILES[:-2])
    subprocess.run([str(STOKER), *words], env={**os.environ, **variables}, check=True, timeout=100)
    return folder / "data"


def on_a_terminal(lab: Lab, folder: Path, *words: str) -> str:
    """Run `stoker` on a terminal and return what stood there, its progress line included."""
    variables = {
        "MLPSTORAGE_RESULTS_DIR": str(folder / "results"),
        "MLPSTORAGE_SYSTEMNAME": "sysA",
        "MLPSTORAGE_DATA_DIR": str(folder / "data"),
        "TERM": "xterm",
        "COLUMNS": "200",  # of wherever the tests run, it would count more than the terminal's own
    }
    command = f"stty cols 200; exec {shlex.join([str(STOKER), *words])}"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=folder,
        env={**lab.environment(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow  # how much is shown depends on how fast the machine is
@pytest.mark.skipif(shutil.which("script") is None, reason="no script (util-linux)")
def test_progress_of_many_hosts_stands_on_the_terminal(lab: Lab, tmp_path: Path) -> None:
    initialise(tmp_path / "results", "acme")
    hosts = [f"{name}:1" for name in lab.names]
    files = ("-p", "dataset.num_files_train=300", *FILES[2:])
    made = on_a_terminal(lab, tmp_path, *SERIES, "datagen", "file", "-np", "3", "--hosts", *hosts, *files)
    lines = re.findall(r"3/4 run: (\d+) %, .*?; (\d+)/300 files, [^,]*B/s, (\d)/3 hosts done", made)
    assert lines, made
    shares = [int(percent) for percent, _, _ in lines]
    assert shares == sorted(shares) and shares[-1] == 100, shares
    assert re.search(r"3/3 hosts done \(first at .*, last at .*\)", made), made
    ran = on_a_terminal(lab, tmp_path, *SERIES, *RUN, "-na", "3", "--hosts", *hosts, "-p", "train.epochs=2", *files[1:])
    assert re.search(r"3/4 run: \d+ %, .* left; epoch \d step \d+/100, AU .*, \d/3 hosts done", ran), ran
    assert re.search(r"3/3 hosts done \(first at .*, last at .*\)", ran), ran


@pytest.mark.slow
def test_other_hosts_than_the_described_ones_are_found_before_the_start(lab: Lab, ready: Path) -> None:
    hosts = [f"{name}:1" for name in lab.names[:2]]
    words = (*SERIES, *RUN, "-na", "2", "--hosts", *hosts, *FILES)
    first = stoker(lab, ready, *words)
    description = ready / "results/whatif/acme/systems/sysA.yaml"
    assert f"fill in its blanks in {description}" in first.stderr
    stoker(lab, ready, *words)
    assert len(runs(ready)) == 2  # what SSH tells is what the ranks told, but for their environment
    text = description.read_text()
    assert "quantity: 2" in text
    description.write_text(text.replace("quantity: 2", "quantity: 3", 1))
    found = started(lab, ready, *words)
    assert found.returncode == 5, found.stderr
    assert "E404" in found.stderr and "-quantity: 3" in found.stderr and "+quantity: 2" in found.stderr
    assert len(runs(ready)) == 2


def test_hosts_lock_and_data_that_are_wrong_are_told_at_once(lab: Lab, ready: Path) -> None:
    unused = lab.own.rpartition(".")[0] + ".98"
    (ready / "wrong.lock").write_text("msgspec==0.0.1\n")
    (ready / "data").unlink()
    hosts = (f"{lab.names[0]}:1", f"{unused}:1")
    words = (*SERIES, *RUN, "-na", "2", "--hosts", *hosts, *FILES, "--verify-lockfile", "wrong.lock")
    found = started(lab, ready, *words)
    assert found.returncode == 5, found.stderr
    told = [line for line in found.stderr.splitlines() if line.startswith("  ")]
    assert len(told) == 3, found.stderr
    assert "packages are not as locked" in told[0]
    assert "dataset is not there" in told[1]
    assert f"host {unused}: SSH does not reach it" in told[2]
    assert not runs(ready)


@pytest.mark.slow
@pytest.mark.skipif(not open_mpi(), reason="no Open MPI; apt-get install openmpi-bin")
def test_open_mpi_starts_uneven_ranks(lab: Lab, ready: Path) -> None:
    hosts = [f"{name}:{slots}" for name, slots in zip(lab.names, (3, 2, 1), strict=True)]
    own = ("--mpi-bin", "mpirun", "--allow-run-as-root", "--oversubscribe")
    place = ("-dd", str(ready / "made"))
    made = stoker(
        lab,
        ready,
        *SERIES,
        "datagen",
        "file",
        "-np",
        "6",
        "--hosts",
        *hosts,
        *FILES[:-2],
        *own,
        *place,
        MPI_RUN_BIN=open_mpi(),
    )
    assert "24 files made by 6 ranks" in made.stdout
    words = (*SERIES, *RUN, "-na", "6", "--hosts", *hosts, *FILES[:-2], *own, *place)
    done = stoker(lab, ready, *words, MPI_RUN_BIN=open_mpi())
    assert "ranks: 6: Open MPI" in done.stderr
    (leaf,) = runs(ready)
    told = metadata(leaf)
    assert (told["exit_status"], told["status"], told["num_processes"]) == (0, "complete", 6)
    assert told["executed_command"].startswith(f"{open_mpi()} ")
    evidence = ready / "results" / told["stoker_run_folder"] / "result.json"
    ranks = {host["host"]: host["ranks"] for host in json.loads(evidence.read_text())["hosts"]}
    assert ranks == dict(zip(lab.names, (3, 2, 1), strict=True))
    assert len(list(leaf.glob("*_output.json"))) == 6
