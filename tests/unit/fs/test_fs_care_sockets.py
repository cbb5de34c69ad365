"""Care as it runs: its thread, disks that report over sockets, a store that opens from the map alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from care_place import PAIR, content

from stoker.core.errors import NotFoundError, TransientError, UsageError
from stoker.fs.care import open_cluster
from stoker.fs.care.care import Care
from stoker.fs.care.membership import Rules
from stoker.fs.care.messages import CARE_OF, NOTE_SHORT, ORDER, CareOf, CareStatus, NoteShort, Order
from stoker.fs.care.notes import Notes
from stoker.fs.care.orders import change_map, drained
from stoker.fs.care.repairs import RepairOptions
from stoker.fs.care.tending import CareOptions
from stoker.fs.chunk import Target
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.reporting import Place, Reporter
from stoker.fs.chunk.service import ChunkService
from stoker.fs.cluster import Short
from stoker.fs.disk import Disk
from stoker.fs.disk.state import DiskOptions
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import MakeClass, TakeSlices
from stoker.fs.meta.slices import Slice
from stoker.fs.place.watching import SECOND_NS, Limits
from stoker.fs.store.interface import SliceRange
from stoker.fs.wire import Peer, RpcServer

OPTIONS = CareOptions(
    Rules(limits=Limits(suspect_ns=2 * SECOND_NS, down_ns=3 * SECOND_NS, out_ns=SECOND_NS), adopt_ns=SECOND_NS // 2),
    RepairOptions(calm_seconds=0.5),
)


class Served:
    """A disk that is served and reports, as the process of a disk does."""

    def __init__(self, folder: Path, volume: str, master: str, host: str) -> None:
        with ExitStack() as held:
            self.disk = Disk.make(folder, volume, DiskOptions(reserve_bytes=0))
            held.callback(self.disk.close)
            self.fence = Fence(time.monotonic, active=True)
            self.sources: dict[str, Target] = {}
            held.callback(lambda: [source.close() for source in self.sources.values()])
            service = ChunkService(self.disk, self.fence, self._source, id)
            server = RpcServer(service.handlers(), volume=volume)
            held.callback(server.close)
            address = f"127.0.0.1:{server.address[1]}"
            peer = Peer(master, volume=volume, role="chunk")
            self.reporter = Reporter(
                [peer], address, self.disk.status, self.fence, time.monotonic, place=Place(host)
            )  # fmt: skip
            self.reporter.start()
            held.callback(self.reporter.stop)
            self._held = held.pop_all()

    def _source(self, address: str) -> Target:
        return self.sources.setdefault(address, Target(address, volume=self.disk.volume))

    def close(self) -> None:
        self._held.close()


class Running:
    """A volume, its care behind a socket, and three disks."""

    def __init__(self, folder: Path) -> None:
        with ExitStack() as held:
            self.volume = held.enter_context(Volume.format("memory://"))
            self.storage_class = self.volume.run(MakeClass(PAIR)).value
            care = Care(OPTIONS)
            held.callback(care.close)
            server = RpcServer(care.handlers())
            held.callback(server.close)
            self.master = f"127.0.0.1:{server.address[1]}"
            self.peer = held.enter_context(Peer(self.master))
            with pytest.raises(TransientError, match="starts"):
                self.peer.call(CARE_OF, CareOf(), within_seconds=0.3)
            care.start(self.volume, lambda: True)
            uuid = self.volume.settings.uuid
            self.disks = [Served(folder / f"disk-{n}", uuid, self.master, f"h{n}") for n in range(3)]
            for disk in self.disks:
                held.callback(disk.close)
            self._held = held.pop_all()

    def status(self) -> CareStatus:
        return self.peer.call(CARE_OF, CareOf(), within_seconds=10)[0]

    def eventually(self, holds: Callable[[CareStatus], Any], seconds: float = 60.0) -> CareStatus:
        until = time.monotonic() + seconds
        while not holds(status := self.status()):
            assert time.monotonic() < until, status
            time.sleep(0.05)
        return status

    def close(self) -> None:
        self._held.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.close()


def test_disks_report_and_what_they_hold_is_cared_for(running: Running) -> None:
    status = running.eventually(lambda status: len(status.disks) == 3)
    assert [one.disk.host for one in status.disks] == ["h0", "h1", "h2"]
    assert not running.disks[0].fence.closed
    store = open_cluster(running.volume)
    first = running.volume.run(TakeSlices(8)).value
    slices = [Slice(first + n, 1, 20_000, running.storage_class) for n in range(8)]
    for data in slices:
        store.write(data, [content(data)], durable=True)
    emptied_by_fetching(running)
    running.disks[0].close()  # it says that it leaves; its socket is closed
    found = store.read([SliceRange(data, 0, data.size_bytes) for data in slices])
    assert [bytes(part) for part in found] == [content(data) for data in slices]
    running.eventually(lambda status: status.disks[0].disk.health == "maintenance")
    running.peer.call(ORDER, Order("pause"), within_seconds=5)
    short = tuple(one.slice for one in store.take_short())
    running.peer.call(NOTE_SHORT, NoteShort(short), within_seconds=5)
    assert running.eventually(lambda status: status.repair.paused).repair.waiting >= len(short)
    running.peer.call(ORDER, Order("resume"), within_seconds=5)
    running.peer.call(ORDER, Order("examine"), within_seconds=5)
    status = running.eventually(lambda status: not status.repair.waiting and not status.repair.active)
    assert status.trouble == () and status.repair.failed == 0
    store.close()


def emptied_by_fetching(running: Running) -> None:
    """Drain a disk: the others fetch what it holds by themselves; then use it again."""
    held = running.disks[2].disk.status
    assert held().shards
    assert not any(disk.sources for disk in running.disks)
    change_map(running.volume, lambda there: drained(there, there.disks[2:], undo=False))
    running.eventually(lambda status: not (held().shards or status.repair.waiting or status.repair.unsettled_groups))
    change_map(running.volume, lambda there: drained(there, there.disks[2:], undo=True))
    running.eventually(lambda _: held().shards)
    status = running.eventually(lambda status: not (status.repair.waiting or status.repair.unsettled_groups))
    assert running.disks[0].sources or running.disks[1].sources
    assert (status.repair.rebuilt_shards, status.repair.failed) == (0, 0)


def test_more_slices_than_a_note_may_name_are_refused(running: Running) -> None:
    running.eventually(lambda status: len(status.disks) == 3)
    with pytest.raises(UsageError, match="too many slices"):
        running.peer.call(NOTE_SHORT, NoteShort((Slice(1, 1, 1),) * 1001), within_seconds=5)


def test_a_store_opens_before_there_is_a_disk() -> None:
    with Volume.format("memory://") as volume:
        store = open_cluster(volume)
        with pytest.raises(NotFoundError, match="no cluster map yet"):
            store.write(Slice(1, 1, 1), [b"x"], durable=True)
        store.close()


def test_notes_are_gathered_and_sent_once() -> None:
    sent: list[tuple[Slice, ...]] = []
    notes = Notes(sent.append, time.monotonic)
    for n in range(5):
        notes(Short(Slice(n % 3, 1, 10), (), "a read was degraded"))
    notes.close()
    assert [data for batch in sent for data in batch] == [Slice(0, 1, 10), Slice(1, 1, 10), Slice(2, 1, 10)]
