"""What is visible and what is durable: syncs are counted, and power fails behind each of them."""

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from client_place import Clients

from stoker.core.errors import StokerError, StoreError
from stoker.fs.client import Client, ClientOptions, FileTree
from stoker.fs.client.garbage import GRACE_SECONDS
from stoker.fs.fuse.upkeep import Upkeep
from stoker.fs.meta import Tree, Volume
from stoker.fs.meta.calls import WRITE, BeginSession, Close, Create, Lookup, Mkdir, Unlink
from stoker.fs.meta.engines import sqlite
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.keys import ROOT
from stoker.fs.store.memory import MemorySliceStore


class Power:
    """What the disk certainly holds of a SQLite file: copied at each sync of its log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.syncs = 0
        self.error: OSError | None = None
        self._mutex = threading.Lock()
        self._real: Callable[[int], None] = os.fdatasync
        monkeypatch.setattr(sqlite.os, "fdatasync", self._sync)

    def _sync(self, handle: int) -> None:
        with self._mutex:
            self.syncs += 1
            if self.error is not None:
                raise self.error
            for ending in ("", "-wal"):
                shutil.copyfile(self.folder / f"v.db{ending}", self.kept / f"v.db{ending}")

    def failed(self) -> Volume:
        """Return the volume as it is found when power comes back."""
        return Volume.open(f"sqlite://{self.kept}/v.db")


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(tmp_path, monkeypatch)


@pytest.fixture
def volume(power: Power) -> Iterator[Volume]:
    with Volume.format(f"sqlite://{power.folder}/v.db") as made:
        yield made


def there(volume: Volume, name: bytes) -> bool:
    try:
        volume.run(Lookup(ROOT, name))
    except MetaError:
        return False
    return True


def test_opening_and_closing_wait_for_no_disk_and_the_next_change_keeps_them(volume: Volume, power: Power) -> None:
    session = volume.run(BeginSession(10**12)).value
    syncs = power.syncs
    ino = volume.run(Create(ROOT, b"f", 0o600, access=WRITE), session=session).ino
    volume.run(Close(ino, WRITE), session=session)
    assert power.syncs == syncs
    assert there(volume, b"f")
    with power.failed() as found:
        assert not there(found, b"f"), "nobody was promised it"
    volume.run(Mkdir(ROOT, b"d", 0o700))
    assert power.syncs == syncs + 1
    with power.failed() as found:
        assert there(found, b"f")
        assert there(found, b"d")


def test_all_that_can_be_seen_is_made_durable(volume: Volume, power: Power) -> None:
    session = volume.run(BeginSession(10**12)).value
    volume.run(Create(ROOT, b"f", 0o600, access=WRITE), session=session)
    syncs = power.syncs
    volume.make_durable()
    volume.make_durable()
    assert power.syncs == syncs + 1, "the second finds nothing to do"
    with power.failed() as found:
        assert there(found, b"f")


def test_changes_of_another_process_are_made_durable_too(volume: Volume, power: Power) -> None:
    with Volume.open(f"sqlite://{power.folder}/v.db") as other:
        session = other.run(BeginSession(10**12)).value
        other.run(Create(ROOT, b"theirs", 0o600, access=WRITE), session=session)
        volume.make_durable()
    with power.failed() as found:
        assert there(found, b"theirs")


def test_threads_share_syncs_and_each_has_its_promise(volume: Volume, power: Power) -> None:
    syncs = power.syncs

    def work(number: int) -> None:
        for step in range(10):
            Tree(volume).mkdir(f"/d{number}-{step}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert power.syncs - syncs < 160
    with power.failed() as found:
        assert all(there(found, b"d%d-%d" % (n, step)) for n in range(16) for step in range(10))


def test_once_a_sync_has_failed_nothing_more_is_promised(volume: Volume, power: Power) -> None:
    power.error = OSError(5, "Input/output error")
    with pytest.raises(StoreError, match="sync of the metadata's log failed"):
        volume.run(Mkdir(ROOT, b"a", 0o700))
    power.error = None
    with pytest.raises(StoreError, match="sync of the metadata's log failed"):
        volume.run(Mkdir(ROOT, b"b", 0o700))
    with pytest.raises(StoreError, match="sync"):
        volume.make_durable()
    assert not there(volume, b"b")


def test_the_metadata_is_readable_by_its_owner_alone(volume: Volume, power: Power) -> None:
    old = os.umask(0)
    try:
        Volume.format(f"sqlite://{power.folder}/w.db").close()
        Volume.format(f"lmdb://{power.folder}/w").close()
    finally:
        os.umask(old)
    files = [power.folder / "v.db", power.folder / "v.db-wal", power.folder / "w.db", *(power.folder / "w").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


# -- the client


@pytest.fixture
def client(volume: Volume) -> Iterator[Client]:
    with Client(volume, MemorySliceStore(), ClientOptions(), threads=False) as made:
        yield made


def test_a_small_file_that_is_synced_waits_once_for_its_bytes_and_once_for_its_names(
    client: Client, power: Power
) -> None:
    FileTree(client).write_bytes("/first", b"numbers of slices are taken")
    syncs = power.syncs
    handle = client.create(Create(ROOT, b"f", 0o600, access=WRITE))[1]
    handle.write(0, bytes(4096))
    handle.fsync()
    assert power.syncs == syncs + 1
    handle.flush()
    handle.close()
    assert power.syncs == syncs + 1
    with power.failed() as found:
        assert found.run(Lookup(ROOT, b"f")).attr.size_bytes == 4096


@pytest.mark.parametrize("verb", ["flush", "fsync", "close", "age"])
def test_a_file_that_was_only_made_is_kept_when_that_is_promised(client: Client, power: Power, verb: str) -> None:
    handle = client.create(Create(ROOT, b"f", 0o600, access=WRITE))[1]
    with power.failed() as found:
        assert not there(found, b"f")
    client.flush_old() if verb == "age" else getattr(handle, verb)()
    with power.failed() as found:
        assert there(found, b"f")
    syncs = power.syncs
    handle.close()
    assert power.syncs == syncs


def test_a_file_that_was_emptied_is_so_when_its_closing_returns(client: Client, power: Power) -> None:
    ino = FileTree(client).write_bytes("/f", b"old").ino
    client.open(ino, WRITE, truncate=True).close()
    with power.failed() as found:
        assert found.run(Lookup(ROOT, b"f")).attr.size_bytes == 0


def test_a_failed_sync_is_told_however_often_it_is_asked_for(client: Client, power: Power) -> None:
    handle = client.create(Create(ROOT, b"f", 0o600, access=WRITE))[1]
    handle.write(0, b"bytes")
    power.error = OSError(5, "Input/output error")
    for _ in range(2):
        with pytest.raises(MetaError):
            handle.fsync()
        power.error = None
    with pytest.raises(StokerError):
        handle.close()
    with pytest.raises(StoreError):
        client.close()


# -- upkeep of a mount


def test_upkeep_removes_what_was_freed_and_rarely_what_was_never_shown() -> None:
    clients = Clients()
    try:
        told: list[str] = []
        upkeep = Upkeep(clients.place.volume, clients.store, told.append, clock=lambda: clients.place.now_ns)
        client = clients.client()
        tree = FileTree(client)
        tree.write_bytes("/kept", b"kept")
        tree.write_bytes("/gone", b"gone")
        client.ask(Unlink(ROOT, b"gone"))
        [done] = upkeep.tidy()
        assert (done.freed, done.waiting) == (0, 1)
        clients.wait(61)
        [done] = upkeep.tidy()
        assert (done.freed, done.inventory) == (1, 0)
        assert len(list(clients.slices.inventory())) == 1
        clients.store.write(client.works.new_slice(4, client.session.number, 0), [b"lost"], durable=True)
        clients.wait(2 * GRACE_SECONDS)
        assert upkeep.tidy()[1].lost == 1, "it has ended the session"
        reader = clients.client()
        assert FileTree(reader).read_bytes("/kept") == b"kept"
        assert told == []
    finally:
        clients.close()


def test_upkeep_is_done_by_a_thread_that_complains_of_failures() -> None:
    clients = Clients()
    heard = threading.Event()
    clients.store.fault = lambda verb: StoreError("broken") if verb == "remove" else None
    client = clients.client()
    FileTree(client).write_bytes("/gone", b"gone")
    client.ask(Unlink(ROOT, b"gone"))
    clients.wait(61)
    place = clients.place
    with Upkeep(place.volume, clients.store, lambda text: heard.set(), clock=lambda: place.now_ns, every_seconds=0.01):
        assert heard.wait(30)
    clients.close()
