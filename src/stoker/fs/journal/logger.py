"""The metalogger: a follower that keeps snapshots and all entries between them, so that a past state can be had again.

    SNAPSHOT/…                        as in `snapshots`
    entries/FIRST-LAST                entries with numbers and lengths, and a CRC32C over all

It needs a folder for a copy, for its snapshots, and a store for what it keeps. What is older than the retention goes,
but never the newest snapshot that is older than it: from there the oldest kept moment is reached.
"""

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final

import crc32c
import msgspec

from stoker.core.clock import monotonic_ns, wall_ns
from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.fs.journal.entries import Following as Report
from stoker.fs.journal.entries import Keys, LogReader, Transaction, packed, unpack_floor, unpack_writes
from stoker.fs.journal.etcd import Etcd, Get, KeyValue, Put, Txn, UnknownOutcomeError, ask
from stoker.fs.journal.snapshots import Manifest, read_manifest, read_pairs, snapshots_in, write_snapshot
from stoker.fs.journal.state import Following, Position
from stoker.fs.meta.kv import Engine
from stoker.storage.api import Store

_ENTRY: Final = struct.Struct(">QI")
_CRC: Final = struct.Struct(">I")
_FOLDER: Final = "entries/"
_ENTRY_BYTES_MAX: Final = 2 << 20
_PAGE: Final = 32


class LoggerOptions(msgspec.Struct, frozen=True):
    """How often entries are stored, how often a snapshot is made, and for how long both are kept."""

    segment_seconds: float = 5.0
    segment_bytes: int = 8 << 20
    snapshot_seconds: float = 3600.0
    retention_seconds: float = 30 * 86_400.0
    poll_seconds: float = 0.2


def pack_segment(entries: list[tuple[int, bytes]]) -> bytes:
    """Return entries as they are stored."""
    data = b"".join(_ENTRY.pack(number, len(value)) + value for number, value in entries)
    return data + _CRC.pack(crc32c.crc32c(data))


def unpack_segment(name: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the entries of a segment. Raises CorruptError."""
    body = data[: -_CRC.size]
    if len(data) < _CRC.size or _CRC.unpack_from(data, len(body))[0] != crc32c.crc32c(body):
        raise CorruptError("segment of the log is damaged", where=name, expected="its checksum")
    place = 0
    while place < len(body):
        number, size_bytes = _ENTRY.unpack_from(body, place)
        place += _ENTRY.size
        if size_bytes > _ENTRY_BYTES_MAX or size_bytes > len(body) - place:
            raise CorruptError("segment of the log contradicts itself", where=name)
        yield number, body[place : place + size_bytes]
        place += size_bytes


def segments_in(store: Store) -> list[tuple[int, int, str]]:
    """Return the segments that are kept: first and last entry, and the key; in order."""
    found = []
    for info in store.list(_FOLDER):
        first, dash, last = info.key.removeprefix(_FOLDER).partition("-")
        try:
            found.append((int(first, 16), int(last, 16), info.key))
        except ValueError:
            raise CorruptError("segment of the log has a strange name", where=info.key, got=dash) from None
    return sorted(found)


class MetaLogger:
    """Follows one journal. `run` works until told to stop."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        volume: str,
        state: Following,
        store: Store,
        options: LoggerOptions | None = None,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._volume = volume
        self._state = state
        self._store = store
        self._options = options or LoggerOptions()
        self._reader = LogReader(state.position.number, state.position.epoch)
        self._held: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._done: list[Transaction] = []
        self._whole = state.position
        self._stored_ns = monotonic_ns()
        self._snapshot_ns = -(1 << 62)
        self._beat = 0
        self.stored = state.position.number

    @property
    def number(self) -> int:
        """Return the last entry that was followed."""
        return self._reader.number

    def run(self, stop: threading.Event, told: Callable[[str], None] = lambda _: None) -> None:
        """Follow until told to stop; what is held then is stored. Raises CorruptError, StoreError, UsageError."""
        try:
            while not stop.is_set():
                try:
                    more = self.step(told)
                except UnknownOutcomeError:
                    more = False
                if not more:
                    stop.wait(self._options.poll_seconds)
        finally:
            self.store_held()

    def step(self, told: Callable[[str], None] = lambda _: None) -> bool:
        """Take what comes next, and keep what is due; tells whether there is more."""
        reads = (self._keys.entries(self._reader.number + 1, _PAGE), Get(self._keys.floor))
        outcome = self._etcd.begin(Txn(then=reads)).result()
        entries, floors = outcome.found
        floor = unpack_floor(floors[0].value if floors else None)
        if floor > self._reader.number + 1:
            raise UsageError(
                "log begins behind what the metalogger has",
                where=self._keys.prefix.decode(),
                expected=f"entry {self._reader.number + 1}",
                got=f"entry {floor}",
                remedy="start it with a copy of a master's snapshot, or with an empty folder and store before the trim",
            )
        self._follow(entries)
        now_ns = monotonic_ns()
        late = now_ns - self._stored_ns > self._options.segment_seconds * 1e9
        if self._held_bytes >= self._options.segment_bytes or (late and self._held):
            self.store_held()
        if now_ns - self._snapshot_ns > self._options.snapshot_seconds * 1e9 and self._whole.number:
            self.snapshot(told)
        return outcome.more

    def _follow(self, entries: tuple[KeyValue, ...]) -> None:
        done: list[Transaction] = []
        for pair in entries:
            if self._keys.number(pair.key) != self._reader.number + 1:
                break
            transaction = self._reader.feed(self._reader.number + 1, pair.value)
            self._held.append((self._reader.number, pair.value))
            self._held_bytes += len(pair.value)
            if transaction is not None:
                done.append(transaction)
        self._done += done
        if self._reader.whole > self._whole.number:
            self._whole = Position(self._reader.whole, self._reader.epoch, self._reader.time_ns)

    def store_held(self) -> None:
        """Store the entries that are held, then count them as followed, and let the masters forget them.

        In this order: whoever starts again reads from where the copy stands, and leaves no gap.
        """
        if self._held:
            first, last = self._held[0][0], self._held[-1][0]
            self._store.put(f"{_FOLDER}{first:016x}-{last:016x}", pack_segment(self._held))
            self._held, self._held_bytes = [], 0
            self._state.apply(self._done, self._whole)
            self._done = []
            self.stored = self._whole.number
        self._stored_ns = monotonic_ns()
        self._beat += 1
        report = Report(self.stored, self._beat)
        ask(self._etcd, Txn(then=(Put(self._keys.followers + b"metalogger", packed(report)),)))

    def snapshot(self, told: Callable[[str], None]) -> None:
        """Make a snapshot, and forget what is older than the retention."""
        self.store_held()
        self._snapshot_ns = monotonic_ns()
        note = write_snapshot(self._state.copy, self._store, self._volume)
        told(f"snapshot of entry {note.number}, revision {note.revision}")
        self.forget(wall_ns() - int(self._options.retention_seconds * 1e9))

    def forget(self, before_ns: int) -> None:
        """Forget what is not needed to reach moments from `before_ns` on."""
        names = snapshots_in(self._store)
        old = [name for name in names if read_manifest(self._store, name).position.time_ns < before_ns]
        for name in old[:-1]:
            keys = sorted((info.key for info in self._store.list(f"{name}/")), key=lambda key: "manifest" not in key)
            for key in keys:
                self._store.delete(key)
        kept = snapshots_in(self._store)
        for _, last, key in segments_in(self._store) if kept else ():
            if last <= int(kept[0], 16):
                self._store.delete(key)


class Restored(msgspec.Struct, frozen=True):
    """What was restored: revision and time of the state, the snapshot it began from, transactions behind it."""

    revision: int
    time_ns: int
    snapshot: str
    transactions: int


def restore(store: Store, target: Engine, *, revision: int | None = None, time_ns: int | None = None) -> Restored:
    """Fill an empty engine with the newest state that is not newer than a revision, or a time; else the newest.

    Raises StokerError where no snapshot is old enough, CorruptError for what is damaged or has a gap.
    """

    def within(at_revision: int, at_ns: int) -> bool:
        return (revision is None or at_revision <= revision) and (time_ns is None or at_ns <= time_ns)

    name, manifest = _base(store, within)
    pairs: dict[bytes, bytes] = dict(read_pairs(store, name, manifest))
    reader = LogReader(manifest.position.number, manifest.position.epoch)
    reached, reached_ns, count = manifest.revision, manifest.position.time_ns, 0
    for transaction in _behind(store, reader):
        if not within(transaction.revision, transaction.time_ns):
            break
        for key, value in unpack_writes(transaction).items():
            if value is None:
                pairs.pop(key, None)
            else:
                pairs[key] = value
        reached, reached_ns, count = transaction.revision, transaction.time_ns, count + 1
    if revision is not None and reached < revision:
        raise StokerError("what is kept does not reach that revision", expected=str(revision), got=str(reached))
    target.bulk_load(sorted(pairs.items()))
    return Restored(reached, reached_ns, name, count)


def _base(store: Store, within: Callable[[int, int], bool]) -> tuple[str, Manifest]:
    for name in reversed(snapshots_in(store)):
        manifest = read_manifest(store, name)
        if within(manifest.revision, manifest.position.time_ns):
            return name, manifest
    raise StokerError("no snapshot is old enough", where=store.url, remedy="ask for a later moment")


def _behind(store: Store, reader: LogReader) -> Iterator[Transaction]:
    """Return the transactions behind where a reader stands, from the segments that are kept."""
    for first, last, key in segments_in(store):
        if last <= reader.number:
            continue
        if first > reader.number + 1:
            raise CorruptError("entries are missing", where=store.url, expected=f"entry {reader.number + 1}", got=key)
        for number, value in unpack_segment(key, bytes(store.get_range(key))):
            if number == reader.number + 1:
                transaction = reader.feed(number, value)
                if transaction is not None:
                    yield transaction
