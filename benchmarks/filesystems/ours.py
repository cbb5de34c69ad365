"""Our own file system as contenders: mounted, over one disk and over a cluster, and the cluster by its native client.

The cluster is three etcd servers, two masters and three chunk servers, all on loopback, with two copies; the mount and
the native client use the same one. What is fsync'd, or answered by the native client, is durable: on the disk, in two
copies, and in the log of two etcd servers. Erasure coding needs twelve disks: 8+4 and two copies are compared on a
cluster of their own, for large files alone.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.filesystems.daemons import told, unmount
from benchmarks.filesystems.works import (
    CLIENTS,
    PIECE_BYTES,
    SAMPLE_BYTES,
    SMALL_BYTES,
    Sizes,
    drop_caches,
    measured,
)
from benchmarks.harness import PeerError, Turn
from stoker.core.errors import StokerError
from stoker.fs.client import FileTree
from stoker.fs.demo.cluster import EIGHT_AND_FOUR, TWO_COPIES, ClusterOptions, LoopbackCluster
from stoker.fs.demo.show import mounted
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import ListClasses, Mkdir, SetClass
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.storage_class import coded

_THREE = ClusterOptions(disks=3, metalogger=False, classes=(coded(TWO_COPIES, 1, 1),))
_TWELVE = ClusterOptions(disks=12, metalogger=False)
_running: dict[tuple[Path, int], LoopbackCluster] = {}


@dataclass(frozen=True)
class Native:
    """The native client: a fresh one, which knows nothing yet, for each turn; and the folder it works in."""

    fresh: Callable[[], AbstractContextManager[FileTree]]
    home: str = ""
    large_only: bool = False


@contextmanager
def one_disk(scratch: Path) -> Iterator[Path]:
    """Give a folder on a mount of a volume of SQLite and a local folder: one copy."""
    home = scratch / "stoker"
    folder = home / "mount"
    folder.mkdir(parents=True)
    Volume.format(f"sqlite://{home}/volume.db", mode=0o777).close()
    told([*_stoker(), "mount", f"sqlite://{home}/volume.db", str(folder)])
    try:
        yield folder
    finally:
        unmount(folder)


def _stoker() -> list[str]:
    return [str(Path(sys.executable).parent / "stoker"), "fs"]


@contextmanager
def _cluster(scratch: Path, options: ClusterOptions = _THREE) -> Iterator[LoopbackCluster]:
    """Give a cluster, the one that runs already if there is one."""
    key = (scratch, options.disks)
    known = _running.get(key)
    if known is not None:
        yield known
        return
    try:
        started = LoopbackCluster(scratch / f"cluster-{options.disks}", options)
    except StokerError as error:
        raise PeerError(str(error)) from error
    with started:
        _running[key] = started
        try:
            yield started
        finally:
            del _running[key]


@contextmanager
def cluster_mounted(scratch: Path) -> Iterator[Path]:
    """Give a folder on a mount of the cluster."""
    with _cluster(scratch) as cluster, mounted(cluster, scratch / "cluster-mount", lambda: False):
        yield scratch / "cluster-mount"


@contextmanager
def cluster_native(scratch: Path) -> Iterator[Native]:
    """Give the native client of the cluster."""
    with _cluster(scratch) as cluster:
        yield Native(cluster.tree)


def _of_twelve(name: str) -> Callable[[Path], AbstractContextManager[Native]]:
    """Return what gives the native client of twelve chunk servers, in a folder of this storage class."""

    @contextmanager
    def place(scratch: Path) -> Iterator[Native]:
        with _cluster(scratch, _TWELVE) as cluster:
            metadata = cluster.metadata
            (number,) = (one.id for one in metadata.run(ListClasses()).classes if one.name == name)
            made = metadata.run(Mkdir(ROOT, name.encode(), 0o777))
            metadata.run(SetClass(made.ino, number))
            yield Native(cluster.tree, f"/{name}", large_only=True)

    return place


OURS: dict[str, Callable[[Path], AbstractContextManager[Path | Native]]] = {
    "stoker, SQLite + local disk, FUSE, 1 copy": one_disk,
    "stoker, masters + 3 chunk servers, FUSE, 2 copies": cluster_mounted,
    "stoker, masters + 3 chunk servers, native client, 2 copies": cluster_native,
    "stoker, masters + 12 chunk servers, native client, 2 copies": _of_twelve(TWO_COPIES),
    "stoker, masters + 12 chunk servers, native client, 8+4": _of_twelve(EIGHT_AND_FOUR),
}


# -- the works of the native client


def write_large(native: Native, sizes: Sizes) -> Turn:
    """Write a file in order, 1 MiB at a time, durable when it returns."""
    piece = random.Random(1).randbytes(PIECE_BYTES)
    count = sizes.large_bytes // PIECE_BYTES
    with native.fresh() as tree, measured() as measure, tree.open(f"{native.home}/native-large", "wb") as file:
        for _ in range(count):
            file.write(piece)
        file.fsync()
    return measure.turn(sizes.large_bytes, count)


def read_large(native: Native, sizes: Sizes) -> Turn:
    """Read the file in order, 1 MiB at a time, by a client that has nothing of it."""
    with native.fresh() as tree:
        if not tree.exists(f"{native.home}/native-large"):
            write_large(native, sizes)
    drop_caches()
    got, buffer = 0, bytearray(PIECE_BYTES)
    with native.fresh() as tree, measured() as measure, tree.open(f"{native.home}/native-large") as file:
        while count := file.readinto(buffer):
            got += count
    assert got == sizes.large_bytes, f"{got} bytes came of {sizes.large_bytes}"
    return measure.turn(got, got // PIECE_BYTES)


def create_small(native: Native, sizes: Sizes) -> Turn:
    """Make files of 4 KiB, each in one step that is durable when it returns, by 16 threads of one client at once."""
    data = random.Random(2).randbytes(SMALL_BYTES)
    folder = f"/native-small-{time.monotonic_ns()}"
    each = sizes.creates // CLIENTS

    with native.fresh() as tree:
        tree.mkdir(folder)

        def client(number: int) -> None:
            for step in range(each):
                tree.write_bytes(f"{folder}/{number}-{step}", data, exclusive=True)

        with ThreadPoolExecutor(CLIENTS) as pool, measured() as measure:
            list(pool.map(client, range(CLIENTS)))
        assert len(tree.listdir(folder)) == each * CLIENTS
        tree.remove_tree(folder)
    return measure.turn(each * CLIENTS * SMALL_BYTES, each * CLIENTS)


def epoch(native: Native, sizes: Sizes) -> Turn:
    """Read every sample once, in an order of its own, as batches, by a client that knows nothing yet."""
    paths = _samples(native, sizes)
    random.Random(time.monotonic_ns()).shuffle(paths)
    drop_caches()
    with native.fresh() as tree, measured() as measure:
        got = sum(len(found) for found in tree.read_each(paths, errors="raise") if not isinstance(found, Exception))
    assert got == len(paths) * SAMPLE_BYTES, f"{got} bytes came"
    return measure.turn(got, len(paths))


def _samples(native: Native, sizes: Sizes) -> list[str]:
    """Return the paths of the samples, made once, 1,000 in a folder."""
    paths = [f"/native-samples/{number // 1000:04d}/{number:08d}" for number in range(sizes.samples)]
    data = random.Random(3).randbytes(SAMPLE_BYTES)
    with native.fresh() as tree:
        if not tree.exists("/native-samples"):
            for folder in sorted({path.rpartition("/")[0] for path in paths}):
                tree.makedirs(folder)
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda path: tree.write_bytes(path, data), paths))
    return paths


_LARGE: dict[str, Callable[[Native, Sizes], Turn]] = {
    "sequential write, durable": write_large,
    "sequential read, cold": read_large,
}
_SMALL: dict[str, Callable[[Native, Sizes], Turn]] = {
    "create + write 4 KiB + sync + close, 16 clients": create_small,
    "epoch over small files, cold": epoch,
}


def native_works(native: Native) -> dict[str, Callable[[Native, Sizes], Turn]]:
    """Return what a native client is asked to do."""
    return _LARGE if native.large_only else {**_LARGE, **_SMALL}
