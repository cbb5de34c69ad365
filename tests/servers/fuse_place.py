"""Mounts for tests: a volume, a process that serves it, and the surety that nothing stays mounted."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker.fs.fuse.mounting import DEVICE, unmount
from stoker.fs.fuse.table import mount_at
from stoker.fs.meta import Caller, Volume, fsck

READY_SECONDS = 60
SERVER = Path(__file__).with_name("fuse_server.py")


def need_fuse() -> None:
    """Skip the test where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting is tried as root")
    if not DEVICE.exists():
        pytest.skip(f"there is no {DEVICE}")


class Mounts:
    """Mount points of one volume, and the process that serves them."""

    def __init__(self, folder: Path, count: int, uid: int = 0, url: str = "", hold_seconds: float = 0) -> None:
        self.folder = folder
        self.url = url or f"sqlite://{folder}/volume.db?sync=off"
        self.points = [folder / f"mount{index}" for index in range(count)]
        self.log = folder / "server.log"
        Volume.format(self.url, owner=Caller(uid, uid)).close()
        for point in self.points:
            point.mkdir()
        if uid:
            for path in (folder, *folder.iterdir()):
                os.chown(path, uid, uid)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVER), str(uid), self.url, *map(str, self.points)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "STOKER_TEST_HOLD_SECONDS": str(hold_seconds)},
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log.read_text()

    def stop(self) -> None:
        """End the server, and unmount what it left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(READY_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for point in self.points:
            while mount_at(point) is not None:
                unmount(point, lazy=True, force=True)


@contextmanager
def mounted(folder: Path, count: int = 1, uid: int = 0, url: str = "", hold_seconds: float = 0) -> Iterator[Mounts]:
    """Give mounts of a new volume; afterwards nothing is mounted, and nothing was complained of."""
    need_fuse()
    mounts = Mounts(folder, count, uid, url, hold_seconds)
    try:
        yield mounts
        assert not mounts.log.read_text(), mounts.log.read_text()
    finally:
        mounts.stop()


def sound(url: str) -> None:
    """Assert that a volume has no fault, and that no session is left in it."""
    with Volume.open(url) as volume:
        assert fsck(volume.engine) == []
        with volume.engine.snapshot() as snapshot:
            assert not list(snapshot.scan(b"s"))
