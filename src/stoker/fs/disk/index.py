"""Where each shard lies: rows in SQLite, and what changed since they were last written, in memory.

The index is never more durable than what it points at: changes stay in memory until `commit`, which whoever owns the
index calls once the data is on the disk. After a crash the end of the log tells what came later. Every row carries a
checksum of its own, and the whole index can be made again from the shards.
"""

import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NoSpaceError, StokerError, StoreError
from stoker.fs.disk.interface import ShardHeader, ShardId, check_header
from stoker.fs.disk.segments import Place
from stoker.kernels import checking

_MAGIC: Final = "stoker disk index"
_VERSION: Final = 1
_KEY: Final = struct.Struct(">QQB")
_ROW: Final = struct.Struct(">HBBIIIIIIB")
_CRC: Final = struct.Struct(">I")
_ABSENT_MAX: Final = 256
_PIECE_ROWS: Final = 1024
GONE_ENTRY_BYTES: Final = 25
IN_FILES: Final = 0
"""The number that stands for files of their own where segments are counted."""


class Entry(msgspec.Struct, frozen=True):
    """Where a shard lies; its header is without checksums. `bad` when it was found damaged."""

    header: ShardHeader
    place: Place
    bad: bool = False


class SegmentFacts(msgspec.Struct):
    """What is known of a segment: how far it is in the index, bytes in use, and removals by the segment they name."""

    end: int
    live_bytes: int = 0
    gone: dict[int, int] = {}

    def used_bytes(self) -> int:
        """Return the bytes that a compaction would keep."""
        return self.live_bytes + GONE_ENTRY_BYTES * sum(self.gone.values())


class ScrubFacts(msgspec.Struct):
    """Where the reading of everything stands; times in seconds since 1970."""

    after: ShardId | None = None
    passes: int = 0
    begun_seconds: float = 0.0
    whole_since_seconds: float = 0.0
    checked_bytes: int = 0
    pass_bytes: int = 0


class Facts(msgspec.Struct):
    """Sums over the rows, and what belongs to them."""

    magic: str = _MAGIC
    version: int = _VERSION
    disk: str = ""
    clean: bool = False
    damaged: str = ""
    shards: int = 0
    bad_shards: int = 0
    used_bytes: int = 0
    files: int = 0
    last_segment: int = 0
    half_compacted: int = 0
    stuck: list[int] = []
    incomplete: str = ""
    errors: int = 0
    made_seconds: float = 0.0
    segments: dict[int, SegmentFacts] = {}
    scrub: ScrubFacts = msgspec.field(default_factory=ScrubFacts)


class IndexUnfitError(CorruptError):
    """The index is missing, torn or another disk's: it is made again."""


def pack_key(shard: ShardId) -> bytes:
    """Return the key of a shard's row: keys are in the order of the ids."""
    return _KEY.pack(shard.slice_id, shard.generation, shard.index)


def pack_row(key: bytes, entry: Entry) -> bytes:
    """Return a row's value."""
    header, place = entry.header, entry.place
    body = _ROW.pack(
        header.storage_class, header.k, header.m, header.cell_bytes, header.slice_bytes, header.shard_bytes,
        place.segment, place.offset, place.size_bytes, entry.bad,
    )  # fmt: skip
    return body + _CRC.pack(checking.crc32c(body, checking.crc32c(key)))


def unpack_row(key: bytes, row: bytes, volume: str) -> Entry:
    """Return what a row says. Raises CorruptError."""
    if len(key) != _KEY.size or len(row) != _ROW.size + _CRC.size:
        raise CorruptError("row of the index has another size", got=f"{len(key)} and {len(row)} bytes")
    body = row[: _ROW.size]
    if _CRC.unpack_from(row, _ROW.size)[0] != checking.crc32c(body, checking.crc32c(key)):
        raise CorruptError("row of the index does not fit its checksum", got=key.hex())
    storage_class, k, m, cell_bytes, slice_bytes, shard_bytes, segment, offset, size_bytes, bad = _ROW.unpack(body)
    shard = ShardId(*_KEY.unpack(key))
    header = ShardHeader(volume, shard, storage_class, k, m, cell_bytes, slice_bytes, shard_bytes, b"")
    check_header(header, bare=True)
    return Entry(header, Place(segment, offset, size_bytes), bool(bad))


class Index:
    """The rows of one disk. Every method may be called from many threads at once."""

    def __init__(self, path: Path | None, volume: str, facts: Facts, connection: sqlite3.Connection) -> None:
        self._where = str(path or "index in memory")
        self._volume = volume
        self._db = connection
        self._changed: dict[ShardId, Entry | None] = {}
        self._freezing: dict[ShardId, Entry | None] = {}
        self._absent: dict[ShardId, None] = {}  # asked for and not there: what is put is asked for twice
        self._mutex = threading.RLock()  # of the changes and the facts
        self._reading = threading.Lock()  # of the connection
        self.facts = facts

    # -- opening -------------------------------------------------------------------------------------------------

    @classmethod
    def make(cls, path: Path | None, volume: str, facts: Facts) -> "Index":
        """Make an empty index, in memory where there is no path; what was there is removed. Raises StoreError."""
        where = str(path or "index in memory")
        if path is not None:
            for name in (path, *_companions(path)):
                name.unlink(missing_ok=True)
        connection = _connected(path)
        try:
            with _telling(where):
                connection.execute("CREATE TABLE shards (key BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID")
                connection.execute("CREATE TABLE facts (one INTEGER PRIMARY KEY, value BLOB NOT NULL)")
            index = cls(path, volume, facts, connection)
            index.commit()
        except BaseException:
            connection.close()
            raise
        return index

    @classmethod
    def open(cls, path: Path, volume: str, disk: str) -> "Index":
        """Open the index of a disk. Raises IndexUnfitError where it has to be made again."""
        if not path.is_file():
            raise IndexUnfitError("disk has no index", where=str(path))
        try:
            connection = _connected(path)
            try:
                with _telling(str(path)):
                    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                        raise CorruptError("index is torn", where=str(path))
                    found = connection.execute("SELECT value FROM facts WHERE one = 1").fetchone()
                facts = _read_facts(found, disk, str(path))
            except BaseException:
                connection.close()
                raise
        except (CorruptError, StoreError) as error:
            raise IndexUnfitError("index cannot be used", where=str(path), got=str(error)) from error
        return cls(path, volume, facts, connection)

    def close(self) -> None:
        """Close the connection; changes that were not committed are lost."""
        with self._reading:
            self._db.close()

    # -- rows ----------------------------------------------------------------------------------------------------

    def get(self, shard: ShardId) -> Entry | None:
        """Return where a shard lies. Raises CorruptError for a damaged row."""
        with self._mutex:
            for changes in (self._changed, self._freezing):
                if shard in changes:
                    return changes[shard]
            if shard in self._absent:
                return None
            key = pack_key(shard)
            with self._reading, _telling(self._where):
                found = self._db.execute("SELECT row FROM shards WHERE key = ?", (key,)).fetchone()
            if found is None:
                if len(self._absent) >= _ABSENT_MAX:
                    self._absent.clear()
                self._absent[shard] = None
        return None if found is None else self._unpacked(key, found[0])

    def _unpacked(self, key: bytes, row: bytes) -> Entry:
        try:
            return unpack_row(key, row, self._volume)
        except StokerError as error:
            with self._mutex:
                self.facts.damaged = str(error)  # so that the next opening makes the index again
            raise

    def set(self, shard: ShardId, entry: Entry | None) -> None:
        """Note where a shard lies now, or that it is gone."""
        with self._mutex:
            self._count(self.get(shard), -1)
            self._count(entry, 1)
            self._changed[shard] = entry
            self._absent.pop(shard, None)

    def _count(self, entry: Entry | None, sign: int) -> None:
        if entry is None:
            return
        facts, place = self.facts, entry.place
        facts.shards += sign
        facts.bad_shards += sign * entry.bad
        facts.used_bytes += sign * place.size_bytes
        if place.segment == IN_FILES:
            facts.files += sign
        else:
            self.segment(place.segment).live_bytes += sign * place.size_bytes

    def segment(self, number: int) -> SegmentFacts:
        """Return what is known of a segment; the caller holds `changing` when it changes that."""
        found = self.facts.segments.get(number)
        if found is None:
            found = self.facts.segments[number] = SegmentFacts(0)
        return found

    @contextmanager
    def changing(self) -> Iterator[Facts]:
        """Hold the facts still."""
        with self._mutex:
            yield self.facts

    def note_gone(self, segment: int, names: dict[int, int]) -> None:
        """Count removals that a record in `segment` tells, by the segments that they name."""
        with self._mutex:
            counted = self.segment(segment).gone
            for number, count in names.items():
                counted[number] = counted.get(number, 0) + count

    def forget_gone(self, number: int) -> None:
        """Let removals that name a segment count no longer: it is gone itself."""
        with self._mutex:
            for facts in self.facts.segments.values():
                facts.gone.pop(number, None)

    def uncommitted(self) -> int:
        """Return how many changes are only in memory."""
        with self._mutex:
            return len(self._changed) + len(self._freezing)

    def page(self, after: ShardId | None, limit: int) -> list[Entry]:
        """Return up to `limit` entries behind `after`, in order. Raises CorruptError for a damaged row."""
        with self._mutex:
            changes = self._freezing | self._changed
            inside = {shard: e for shard, e in changes.items() if after is None or shard > after}
            # Removed ones among the rows would leave the page short: so many more are read.
            rows = self._rows(after, limit + sum(entry is None for entry in inside.values()))
        entries = {entry.header.shard: entry for entry in rows}
        if len(rows) == limit + sum(entry is None for entry in inside.values()) and rows:
            last = rows[-1].header.shard
            inside = {shard: entry for shard, entry in inside.items() if shard <= last}
        merged = entries | inside
        return [entry for shard in sorted(merged) if (entry := merged[shard]) is not None][:limit]

    def _rows(self, after: ShardId | None, limit: int) -> list[Entry]:
        start = b"" if after is None else pack_key(after)
        query = "SELECT key, row FROM shards WHERE key > ? ORDER BY key LIMIT ?"
        with self._reading, _telling(self._where):
            found = self._db.execute(query, (start, limit)).fetchall()
        return [self._unpacked(key, row) for key, row in found]

    def entries(self) -> Iterator[Entry]:
        """Yield every entry in order; those that change meanwhile may be told as they were or as they are."""
        after: ShardId | None = None
        while page := self.page(after, _PIECE_ROWS):
            yield from page
            after = page[-1].header.shard

    # -- durability ----------------------------------------------------------------------------------------------

    def commit(self, *, prepare: Callable[[], None] | None = None) -> None:
        """Write what changed, durably; `prepare` first makes durable what the changes point at. One at a time.

        Raises StoreError, NoSpaceError: then the changes stay in memory.
        """
        with self._mutex:
            assert not self._freezing
            self._freezing, self._changed = self._changed, {}
            body = msgspec.msgpack.encode(self.facts)
        try:
            if prepare is not None:
                prepare()
            self._write(body + _CRC.pack(checking.crc32c(body)))
        except BaseException:
            with self._mutex:
                self._changed = self._freezing | self._changed
                self._freezing = {}
            raise
        with self._mutex:
            self._freezing = {}

    def _write(self, facts: bytes) -> None:
        rows = [(pack_key(shard), entry) for shard, entry in self._freezing.items()]
        with self._reading, _telling(self._where), _transaction(self._db):
            gone = [(key,) for key, entry in rows if entry is None]
            made = [(key, pack_row(key, entry)) for key, entry in rows if entry is not None]
            self._db.executemany("DELETE FROM shards WHERE key = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO shards VALUES (?, ?)", made)
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (1, ?)", (facts,))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _companions(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))


def _connected(path: Path | None) -> sqlite3.Connection:
    where = str(path or ":memory:")
    with _telling(where):
        connection = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
        try:
            # Exclusive first: then the log needs no file in shared memory, which a full disk could break under us.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
    return connection


def _read_facts(found: tuple[object] | None, disk: str, where: str) -> Facts:
    data: object = b"" if found is None else found[0]
    if not isinstance(data, bytes) or len(data) < _CRC.size:
        raise CorruptError("index has no facts", where=where)
    body = data[: -_CRC.size]
    if _CRC.unpack_from(data, len(body))[0] != checking.crc32c(body):
        raise CorruptError("facts of the index do not fit their checksum", where=where)
    try:
        facts = msgspec.msgpack.decode(body, type=Facts)
    except msgspec.MsgspecError as error:
        raise CorruptError("facts of the index are not readable", where=where, got=str(error)) from error
    if (facts.magic, facts.version, facts.disk) != (_MAGIC, _VERSION, disk):
        raise CorruptError("index is another disk's, or of another release", where=where, got=facts.disk)
    if facts.damaged:
        raise CorruptError("index was found damaged", where=where, got=facts.damaged)
    return facts


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _told(error, where) from error


def _told(error: sqlite3.Error, where: str) -> StokerError:
    text = str(error)
    if "full" in text:
        return NoSpaceError("index cannot be written", where=where, got=text, remedy="free some space")
    if type(error) is sqlite3.DatabaseError:  # "malformed", "not a database": the others are its subclasses
        return CorruptError("index is torn", where=where, got=text)
    return StoreError("index failed", where=where, got=text)
