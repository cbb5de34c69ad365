"""What tests of whole clusters share: a cluster that is gone afterwards, and the surety that it is."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stoker.fs.client import FileTree
from stoker.fs.demo.checks import content
from stoker.fs.demo.cluster import ClusterOptions, LoopbackCluster
from stoker.fs.journal.servers import etcd_program
from stoker.fs.meta.storage_class import coded

NEEDS_ETCD = pytest.mark.skipif(etcd_program() is None, reason="etcd is not installed (apt install etcd-server)")
SMALL = ClusterOptions(disks=3, metalogger=False, classes=(coded("copies", 1, 1),))


def users_of(folder: Path) -> list[str]:
    """Return the processes that have a file below a folder open."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            opened = [os.readlink(link) for link in (process / "fd").iterdir()]
            if any(name.startswith(f"{folder}/") for name in opened):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def nothing_left(folder: Path, within_seconds: float = 20.0) -> None:
    """Fail unless no process uses a folder any more, and nothing is mounted below it."""
    until = time.monotonic() + within_seconds
    while users := users_of(folder):
        assert time.monotonic() < until, users
        time.sleep(0.05)
    assert str(folder) not in Path("/proc/mounts").read_text()


@contextmanager
def cluster_in(folder: Path, options: ClusterOptions = SMALL) -> Iterator[LoopbackCluster]:
    """Give a cluster of real processes; none of them is left afterwards."""
    try:
        with LoopbackCluster(folder, options) as cluster:
            yield cluster
    finally:
        nothing_left(folder)


def write_all(tree: FileTree, folder: str, sizes: tuple[int, ...]) -> dict[str, int]:
    """Write files of these sizes, and return them."""
    files = {f"{folder}/{number}-{size}": size for number, size in enumerate(sizes)}
    for path, size in files.items():
        tree.write_bytes(path, content(path, size))
    return files


def read_all(tree: FileTree, files: dict[str, int]) -> None:
    """Fail unless every file reads as it was written."""
    for path, size in files.items():
        assert bytes(tree.read_bytes(path)) == content(path, size), path
