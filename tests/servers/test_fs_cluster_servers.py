"""A cluster of real chunk servers, 12 disks of 8+4: any 4 are killed, read, repaired, 4 others are killed, read."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from chunk_servers import Running, chunk_server, kill

from stoker.fs.chunk import Target
from stoker.fs.cluster import ClusterStore, Options
from stoker.fs.cluster.repairing import exposure
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import coded
from stoker.fs.place import ClusterMap, Disk, new_map
from stoker.fs.place.changing import with_disks
from stoker.fs.store.interface import SliceRange
from stoker.testing.shard_holder_contract import VOLUME
from stoker.testing.slice_store_contract import content

pytestmark = [pytest.mark.server, pytest.mark.slow]
SIZES = (1, 4_000, 40_000, 300_000, 5_000_000)


class Cluster:
    """Three servers of four disks, their map, and a store over them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.started = 0
        self.servers: dict[int, Running] = {}
        self.targets: dict[int, Target] = {}
        self.cold = coded("cold", 8, 4, domain="disk")
        self.map: ClusterMap = new_map([Disk(n, 100, f"h{n // 4}") for n in range(12)], [self.cold])
        for number in range(3):
            self.start(number)

    def start(self, number: int) -> None:
        """Start a server with four empty disks, and let the map tell of them."""
        folders = [self.folder / f"{self.started}.{disk}" for disk in range(4)]
        self.started += 1
        server = self.stack.enter_context(chunk_server(folders))
        self.servers[number] = server
        for at in range(4):
            self.targets[4 * number + at] = self.stack.enter_context(server.target(at, within_seconds=2.0))
        self.set(number, "up")

    def end(self, number: int) -> None:
        """Kill a server and its disks' processes; the map tells that they are down."""
        server = self.servers[number]
        kill(server.process.pid)
        for pid in server.pids:
            kill(pid)
        self.set(number, "down")

    def set(self, number: int, health: str) -> None:
        disks = [self.map.by_id[4 * number + at] for at in range(4)]
        self.map = with_disks(self.map, [msgspec.structs.replace(disk, health=health) for disk in disks])

    @contextmanager
    def store(self) -> Iterator[ClusterStore]:
        made = ClusterStore(
            VOLUME, lambda: self.map, self.targets.__getitem__, lambda _: self.cold, options=Options()
        )  # fmt: skip
        try:
            yield made
        finally:
            made.close()


def all_read(cluster: Cluster, slices: list[Slice]) -> None:
    with cluster.store() as store:
        for data in slices:
            assert bytes(store.read([SliceRange(data, 0, data.size_bytes)])[0]) == content(data)


def test_four_of_twelve_disks_are_killed_and_after_the_repair_four_others(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        slices = [Slice(number, 1, size) for number, size in enumerate(SIZES * 2, 1)]
        with cluster.store() as store:
            for data in slices:
                store.write(data, [content(data)], durable=True)
        all_read(cluster, slices)
        for number in (1, 2):
            cluster.end(number)
            all_read(cluster, slices)
            cluster.start(number)
            with cluster.store() as store:
                assert min(exposure(store.examine())) == 0
                assert all(not report.error and not report.short for report in store.repair_all())
                assert exposure(store.examine()) == {4: len(slices)}
        cluster.end(0)
        all_read(cluster, slices)


def test_servers_that_are_killed_while_many_slices_are_read_cost_none_of_them(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        slices = [Slice(number, 1, 3_000 + 200 * number) for number in range(1, 400)]
        store = stack.enter_context(cluster.store())
        for data in slices:
            store.write(data, [content(data)], durable=False)
        wrong: list[BaseException] = []
        turns: list[int] = []
        over = threading.Event()

        def reading() -> None:
            try:
                while not over.is_set():
                    found = store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
                    assert all(bytes(part) == content(data) for data, part in zip(slices, found, strict=True))
                    turns.append(1)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=reading) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(turns) >= 2)
        for pid in cluster.servers[1].pids:
            kill(pid)  # the map still says that they are up, and their parent starts them anew
        before = len(turns)
        wait_for(lambda: len(turns) >= before + 4)
        over.set()
        for thread in threads:
            thread.join(60)
        assert wrong == []


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)
