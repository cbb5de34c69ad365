"""The metalogger keeps every state of a volume, and a past one is had again."""

import threading
from pathlib import Path

import msgspec
import pytest

from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.fs.journal.entries import Keys, Transaction, pack_nothing, pack_transaction
from stoker.fs.journal.etcd import Delete, Put, Txn
from stoker.fs.journal.logger import LoggerOptions, MetaLogger, restore, segments_in, unpack_segment
from stoker.fs.journal.memory import MemoryEtcd
from stoker.fs.journal.state import Following
from stoker.fs.meta import Volume, fsck
from stoker.fs.meta.calls import Create as Make
from stoker.fs.meta.calls import Mkdir, Unlink
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.kv import Pair
from stoker.storage.api import Store
from stoker.storage.opening import open_store

KEYS = Keys("vol")


class Place:
    """A volume whose transactions go into a journal, one second apart, and every state it had."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 1_000_000_000_000
        self.etcd = MemoryEtcd()
        self.engine = MemoryEngine(MemoryState(), "memory://journal")
        self.entry = 0
        self.states: dict[int, list[Pair]] = {}
        self.times: dict[int, int] = {}
        self.store: Store = open_store(f"file://{folder}/archive", create=True)
        self.copy = MemoryEngine(MemoryState(), "memory://copy")
        self.logger = self.new_logger()

    def new_logger(self) -> MetaLogger:
        options = LoggerOptions(segment_seconds=1e9, snapshot_seconds=1e9, retention_seconds=1e11)
        return MetaLogger(self.etcd, KEYS, "vol", Following(self.copy), self.store, options)

    def put(self, value: bytes) -> None:
        self.entry += 1
        self.etcd.begin(Txn(then=(Put(KEYS.entry(self.entry), value),))).result()

    def write(self, pairs: dict[bytes, bytes | None]) -> None:
        revision = self.engine.txn(None, pairs)
        assert isinstance(revision, int)
        self.now_ns += 1_000_000_000
        record = msgspec.msgpack.encode(list(pairs.items()))
        for entry in pack_transaction(1, Transaction(revision, self.now_ns, record)):
            self.put(entry)
        self.states[revision] = self.engine.scan(b"")
        self.times[revision] = self.now_ns

    def follow(self) -> None:
        while self.logger.step():
            pass

    def restored(self, **moment: int) -> list[Pair]:
        target = MemoryEngine(MemoryState(), "memory://target")
        restore(self.store, target, **moment)
        return target.scan(b"")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    for number in range(1, 31):
        made.write({b"k%02d" % (number % 7): b"%d" % number, b"k%02d" % ((number + 3) % 7): None})
        if number % 8 == 0:
            made.put(pack_nothing(1, number, 0))
            made.follow()
            made.logger.store_held()
        if number in (5, 20):
            made.follow()
            made.logger.snapshot(lambda _: None)
    made.follow()
    made.logger.store_held()
    return made


def test_every_state_behind_the_first_snapshot_is_had_again(place: Place) -> None:
    first = min(revision for revision in place.states if revision >= 1)
    reached = [revision for revision in place.states if revision >= 5]
    for revision in reached:
        assert place.restored(revision=revision) == place.states[revision]
        assert place.restored(time_ns=place.times[revision] + 999_999_999) == place.states[revision]
    assert place.restored() == place.states[30]
    assert first == 1
    with pytest.raises(StokerError, match="old enough"):
        place.restored(revision=0)
    with pytest.raises(StokerError, match="does not reach"):
        place.restored(revision=31)


def test_a_metalogger_that_was_killed_goes_on_without_a_gap(place: Place) -> None:
    place.write({b"held": b"1"})
    place.follow()  # held, not stored: lost with the process
    place.logger = place.new_logger()
    place.write({b"later": b"1"})
    place.follow()
    place.logger.store_held()
    assert place.restored() == place.states[32]
    assert place.restored(revision=31) == place.states[31]


def test_what_is_damaged_or_missing_is_refused(place: Place) -> None:
    _, _, key = segments_in(place.store)[-1]
    whole = bytes(place.store.get_range(key))
    for damaged in (whole[:-1], b"", whole[:10] + bytes([whole[10] ^ 1]) + whole[11:]):
        with pytest.raises(CorruptError, match="damaged"):
            list(unpack_segment(key, damaged))
    behind_the_snapshot = next(key for first, _, key in segments_in(place.store) if first > 24)
    place.store.delete(behind_the_snapshot)
    with pytest.raises(StokerError, match=r"missing|does not reach"):
        place.restored(revision=30)


def test_what_is_older_than_the_retention_goes_and_the_rest_is_still_reached(place: Place) -> None:
    place.logger.snapshot(lambda _: None)
    place.logger.forget(place.times[25])
    with pytest.raises(StokerError, match="old enough"):
        place.restored(revision=19)
    for revision in range(20, 31):
        assert place.restored(revision=revision) == place.states[revision]


def test_a_log_that_was_trimmed_before_it_came_is_told(place: Place) -> None:
    place.etcd.begin(Txn(then=(Put(KEYS.floor, b"40"), Delete(KEYS.entry(0), KEYS.entry(40))))).result()
    with pytest.raises(UsageError, match="begins behind"):
        place.logger.step()


def test_who_is_told_to_stop_stores_what_is_held(place: Place) -> None:
    place.write({b"last": b"1"})
    stop = threading.Event()
    place.follow()
    stop.set()
    place.logger.run(stop)
    assert place.restored() == place.states[31]


def test_a_volume_that_was_restored_is_sound_and_used(tmp_path: Path) -> None:
    made = Place(tmp_path)
    with Volume.format(f"sqlite://{tmp_path}/old.db?sync=off") as volume:
        made.write(dict(volume.engine.scan(b"")))
        revision = volume.engine.revision()
        volume.run(Mkdir(ROOT, b"kept", 0o755))
        volume.run(Make(ROOT, b"removed-later", 0o644))
        for change in volume.engine.changes(revision):
            made.write(dict(change.writes))
        made.follow()
        made.logger.snapshot(lambda _: None)
        revision = volume.engine.revision()
        volume.run(Unlink(ROOT, b"removed-later"))
        for change in volume.engine.changes(revision):
            made.write(dict(change.writes))
        made.follow()
        made.logger.store_held()
    for name, moment in (("now.db", None), ("before.db", 3)):
        with open_engine(f"sqlite://{tmp_path}/{name}", create=True) as target:
            restore(made.store, target, revision=moment)
        with Volume.open(f"sqlite://{tmp_path}/{name}") as again:
            assert fsck(again.engine) == []
            again.run(Make(ROOT, b"new", 0o644, exclusive=True))
            if moment is not None:
                again.run(Unlink(ROOT, b"removed-later"))
