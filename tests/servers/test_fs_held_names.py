"""Two mounts of a real cluster make files in one directory: each name once; a killed one is soon in nobody's way."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from demo_place import NEEDS_ETCD, cluster_in
from fuse_place import need_fuse

from stoker.fs.demo.children import Child
from stoker.fs.demo.show import mounted

pytestmark = [NEEDS_ETCD, pytest.mark.timeout(300)]
NAMES = 120
HOLD_SECONDS = 3.0


class Pair:
    """Two mounts, and who serves them."""

    def __init__(self, points: list[Path], servers: list[Child]) -> None:
        self.points = points
        self.servers = servers


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    need_fuse()
    with cluster_in(tmp_path / "cluster") as cluster, ExitStack() as mounts:
        points = [tmp_path / "one", tmp_path / "two"]
        yield Pair(points, [mounts.enter_context(mounted(cluster, point, lambda: False)) for point in points])


def make(path: Path, content: bytes) -> bool:
    """Make a file that must not be there, write it durably; tell whether it was made."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    return True


def test_each_name_is_made_once(pair: Pair) -> None:
    one, two = pair.points
    (one / "d").mkdir()
    won: list[tuple[str, str]] = []

    def race(point: Path, first: int) -> None:
        for n in range(NAMES):
            name = str((first + n) % NAMES)
            if make(point / "d" / name, point.name.encode()):
                won.append((name, point.name))

    threads = [threading.Thread(target=race, args=(point, n)) for n, point in enumerate((one, one, two, two))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in won) == sorted(map(str, range(NAMES)))
    time.sleep(1.1)  # a mount believes names that long
    for name, winner in won:
        for point in pair.points:
            assert (point / "d" / name).read_bytes() == winner.encode()


def test_what_a_killed_mount_had_synced_is_there_and_its_hold_ends(pair: Pair) -> None:
    one, two = pair.points
    (one / "d").mkdir()
    synced: list[str] = []

    def work(number: int) -> None:
        try:
            for n in range(10_000):
                assert make(one / "d" / f"{number}-{n}", b"content")
                synced.append(f"{number}-{n}")
        except OSError:
            return  # the mount is gone

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(synced) < 100:
        time.sleep(0.01)
    pair.servers[0].kill()
    start = time.monotonic()
    assert make(two / "d" / "after", b"content")
    assert time.monotonic() - start < HOLD_SECONDS + 10
    for thread in threads:
        thread.join()
    time.sleep(1.1)
    for name in synced:
        assert (two / "d" / name).read_bytes() == b"content"
