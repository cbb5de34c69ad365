"""CAP-02 on several hosts, over SSH and by the ranks of a launcher: one folder, and one that is another on one host."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab
from test_many_hosts import open_mpi

from stoker.bench.run.gates import GateReport, GateRequest, looking, run_gates
from stoker.bench.run.hosts.mpirun import MpiOptions, address_towards, find_launcher, identify
from stoker.bench.run.hosts.names import Host
from stoker.bench.run.hosts.start import Launch

MPIEXEC = Path(sys.executable).with_name("mpiexec")
pytestmark = pytest.mark.server
HOW = [
    "ssh",
    pytest.param(
        "launcher",
        marks=pytest.mark.skipif(
            not MPIEXEC.exists() or importlib.util.find_spec("mpi4py") is None,
            reason="no mpiexec; pip install 'stoker[mpi]'",
        ),
    ),
    pytest.param(
        "openmpi",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not open_mpi(), reason="no Open MPI; apt-get install openmpi-bin"),
        ],
    ),
]


@pytest.fixture(autouse=True)
def no_mpich_segments_stay() -> Iterator[None]:
    before = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    for path in set(Path("/dev/shm").glob("mpich_shm_*")) - before:
        path.unlink(missing_ok=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "img_0.npz").touch()
    return tmp_path / "data"


def on(lab: Lab, name: str, words: str) -> None:
    """Run a command on a host; busy machines reset a connection now and then, so it is tried again."""
    ssh = ["ssh", "-F", str(lab.folder / "ssh_config"), "-o", "StrictHostKeyChecking=accept-new"]
    for _ in range(5):
        ended = subprocess.run([*ssh, name, words], timeout=30, capture_output=True, text=True)
        if ended.returncode != 255:
            break
        time.sleep(0.5)
    assert ended.returncode == 0, f"{ended.stderr}\n{(lab.folder / f'{name}.log').read_text()[-2000:]}"


def gates(lab: Lab, data: Path, how: str) -> GateReport:
    hosts = tuple(Host(name, 2) for name in lab.names)
    launch = None
    if how != "ssh":
        own = (open_mpi(), "auto", True, True) if how == "openmpi" else (str(MPIEXEC),)
        options = MpiOptions(*own, own_address=address_towards(hosts), folder=str(data.parent))
        launch = Launch(identify(find_launcher(options.binary)), hosts, options)
    request = GateRequest(target=str(data), results=str(data.parent), hosts=hosts, launch=launch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "LAUNCH_SECONDS", 30.0)
        for _ in range(3):  # for a host whose connection was reset, MPICH's launcher waits for ever
            report = run_gates(request)
            if "did not let all ranks look" not in repr(report):
                break
    return report


@pytest.mark.parametrize("how", HOW)
def test_a_folder_that_all_hosts_share(ssh_here: Lab, data: Path, how: str) -> None:
    report = gates(ssh_here, data, how)
    shared = {gate.id: gate for gate in report.gates}["CAP-02"]
    assert shared.state == "passed", shared.observed
    assert report.via == ("ssh" if how == "ssh" else "launcher")
    assert sorted(report.hosts) == sorted(ssh_here.names) == sorted(shared.facts["seen"])
    assert len({look["inode"] for look in shared.facts["seen"].values()}) == 1
    assert [path.name for path in data.iterdir()] == ["img_0.npz"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("place", [0, 2])
def test_a_folder_that_is_another_on_one_host(ssh_here: Lab, data: Path, how: str, place: int) -> None:
    odd = ssh_here.names[place]
    on(ssh_here, odd, f"mount -t tmpfs none {data}")
    try:
        report = gates(ssh_here, data, how)
    finally:
        on(ssh_here, odd, f"ls -A {data} >&2; umount {data}")
    shared = {gate.id: gate for gate in report.gates}["CAP-02"]
    assert (shared.state, shared.code) == ("failed", "FS_INVALID_STRUCTURE")
    blind = [name for name, look in shared.facts["seen"].items() if not look["same_content"]]
    assert blind == ([odd] if place else ssh_here.names[1:])  # the first host writes the file
    assert [path.name for path in data.iterdir()] == ["img_0.npz"]


def test_a_host_without_the_folder(ssh_here: Lab, data: Path) -> None:
    odd = ssh_here.names[1]
    on(ssh_here, odd, f"mount -t tmpfs none {data.parent}")
    try:
        report = gates(ssh_here, data, "ssh")
    finally:
        on(ssh_here, odd, f"umount {data.parent}")
    shared = {gate.id: gate for gate in report.gates}["CAP-02"]
    assert f"{odd}: no such folder" in shared.observed
