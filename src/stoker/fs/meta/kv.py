"""The small interface between names and whatever stores them: ordered keys, snapshots, checked transactions.

An engine holds keys (1 to 511 bytes) and values in the order of the keys' bytes. Each transaction gets the next
revision. A transaction is handed what it has read, in a read set: if any of that was changed behind the snapshot's
revision, nothing is written and the conflict is returned. Ranges are part of a read set, so that a key that appears
in a range that was scanned is a conflict too.

An engine keeps the newest changes, in order, for whoever watches; what is older is gone.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import StokerError, UsageError

KEY_BYTES_MAX: Final = 511  # LMDB's limit
VALUE_BYTES_MAX: Final = 16 << 20
HISTORY_BYTES_MAX: Final = 16 << 20
_POLL_SECONDS: Final = 0.05  # how often another process's commits are looked for

Pair = tuple[bytes, bytes]
Writes = Mapping[bytes, bytes | None]
"""New values by key; None deletes."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """A range [start, end) that was scanned whole, and how many keys it held; an empty `end` is the end of all keys."""

    start: bytes
    end: bytes
    count: int


@dataclass(frozen=True, slots=True)
class ReadSet:
    """What a transaction has read at `revision`: whether each key was there, and the ranges scanned."""

    revision: int
    keys: Mapping[bytes, bool] = field(default_factory=dict)
    ranges: Sequence[KeyRange] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that was read has changed since; nothing was written."""

    key: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction wrote."""

    revision: int
    writes: tuple[tuple[bytes, bytes | None], ...]


class HistoryGoneError(StokerError):
    """The changes asked for are older than those that are kept: read everything anew."""


class Snapshot(AbstractContextManager["Snapshot"], ABC):
    """The state at one revision; later commits do not show. Close it soon: an engine keeps what it needs."""

    revision: int

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`, in their order."""
        return [self.get(key) for key in keys]

    @abstractmethod
    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return the pairs whose keys begin with `prefix` and lie behind the key `after`, in order, at most `limit`."""

    @abstractmethod
    def close(self) -> None:
        """Let the snapshot go; closing twice is harmless."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer(Protocol):
    """What an engine shows of itself inside its one write transaction."""

    revision: int

    def modified(self, key: bytes) -> int:
        """Return the revision that last wrote `key`, 0 when it is not there."""

    def modified_in(self, start: bytes, end: bytes) -> Iterable[tuple[bytes, int]]:
        """Return the keys of a range with the revisions that last wrote them."""

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        """Write; `record` goes into the history, None empties it. Done when the write transaction ends."""


class Engine(ABC):
    """Ordered keys and values. All methods may be called from many threads."""

    name: str
    url: str

    def __init__(self) -> None:
        self._news = threading.Condition()

    # -- what an engine supplies

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the state as of the newest commit."""

    @abstractmethod
    def revision(self) -> int:
        """Return the revision of the newest commit, of any process; 0 for an engine that never held anything."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Writer]:
        """Give the one write transaction: visible when left well, undone when left by an exception.

        It is durable then, or once `make_durable` was called with its revision.
        """

    @abstractmethod
    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        """Return the revision below which history is gone, and the records behind revision `after`."""

    @abstractmethod
    def close(self) -> None:
        """Close; twice is harmless."""

    def make_durable(self, revision: int) -> None:  # noqa: B027 - most engines have nothing to do
        """Return when all that was committed up to a revision, by any process, survives a power failure.

        Nothing is to be done by an engine whose commits are durable when they are made. Raises StoreError.
        """

    # -- what all share

    def get(self, key: bytes) -> bytes | None:
        """Return the newest value of `key`, None when there is none."""
        with self.snapshot() as snapshot:
            return snapshot.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the newest values of `keys`, all of one revision."""
        with self.snapshot() as snapshot:
            return snapshot.get_many(keys)

    def scan(
        self, prefix: bytes, after: bytes = b"", limit: int | None = None, snapshot: Snapshot | None = None
    ) -> list[Pair]:
        """Return pairs in order as `Snapshot.scan` does, of `snapshot` or of the newest commit."""
        if snapshot is not None:
            return snapshot.scan(prefix, after, limit)
        with self.snapshot() as newest:
            return newest.scan(prefix, after, limit)

    def txn(self, reads: ReadSet | None, writes: Writes, *, durable: bool = True) -> int | Conflict:
        """Write all or nothing, durably, unless what was read has changed; return the revision or the conflict.

        Without `durable` it is visible at once and survives the end of the process, but a power failure only once
        `make_durable` was called with its revision, or a later durable transaction has returned.
        Without writes the reads are checked, and their being unchanged is answered with the newest revision.
        Raises UsageError for keys and values beyond the limits, NoSpaceError, StoreError.
        """
        _check(writes)
        record = _record(writes)
        with self._writing() as writer:
            conflict = None if reads is None else find_conflict(writer, reads)
            if conflict is not None:
                return conflict
            revision = writer.revision
            if writes:
                revision += 1
                writer.apply(revision, writes, record)
        self._tell()
        if durable:
            self.make_durable(revision)
        return revision

    def bulk_load(self, pairs: Iterable[Pair]) -> int:
        """Fill an engine that is empty, all or nothing; return the revision. Watchers must begin anew behind it.

        Raises UsageError when a key is there already.
        """
        loaded = dict(pairs)
        _check(loaded)
        with self._writing() as writer:
            if next(iter(writer.modified_in(b"", b"")), None) is not None:
                raise UsageError("engine holds keys already", where=self.url, expected="an empty one to load into")
            revision = writer.revision + 1
            writer.apply(revision, loaded, None)
        self._tell()
        self.make_durable(revision)
        return revision

    def changes(self, after: int, limit: int = 1000) -> list[Change]:
        """Return what was committed behind revision `after`, oldest first, at most `limit` transactions.

        Raises HistoryGoneError when some of it is no longer kept.
        """
        floor, records = self._history(after, limit)
        if after < floor:
            raise HistoryGoneError(
                "changes are no longer kept",
                where=self.url,
                expected=f"a revision from {floor}",
                got=str(after),
                remedy="read everything, then watch from its revision",
            )
        decode = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes | None], ...]).decode
        return [Change(revision, decode(record)) for revision, record in records]

    def watch(self, after: int, *, timeout_seconds: float = 0.0, limit: int = 1000) -> list[Change]:
        """Wait until something is committed behind revision `after`, by any process, and return it as `changes` does.

        Empty when nothing was committed in time.
        """
        deadline_ns = monotonic_ns() + int(timeout_seconds * 1e9)
        with self._news:
            while self.revision() <= after:
                left_seconds = (deadline_ns - monotonic_ns()) / 1e9
                if left_seconds <= 0:
                    return []
                self._news.wait(min(left_seconds, _POLL_SECONDS))
        return self.changes(after, limit)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Copy(Engine):
    """An engine that can follow a log: it takes transactions with the revisions they have elsewhere, and a mark."""

    @abstractmethod
    def mark(self) -> bytes:
        """Return the mark of the newest replay; empty for none."""

    @abstractmethod
    def marked_snapshot(self) -> tuple[bytes, Snapshot]:
        """Return a snapshot with the mark that belongs to it."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Writer]:
        """Give what a transaction's reads are checked against, as of the newest commit; nothing is written to it."""

    @abstractmethod
    def _set_mark(self, writer: Writer, mark: bytes) -> None:
        """Write the mark, inside the one write transaction."""

    def replay(self, transactions: Iterable[tuple[int, Writes, bytes | None]], mark: bytes) -> None:
        """Do transactions that were done elsewhere: revision, writes, and record for the history (None empties it).

        All or nothing, together with the mark.
        """
        with self._writing() as writer:
            for revision, writes, record in transactions:
                writer.apply(revision, writes, record)
            self._set_mark(writer, mark)
        self._tell()


def find_conflict(writer: Writer, reads: ReadSet) -> Conflict | None:
    """Return the first thing of a read set that was changed behind its revision.

    A key that was there must not be newer or gone. A range is unchanged when none of its keys is newer and their
    number is the same: a key that went without another's coming changes the number, one that came is newer.
    """
    if writer.revision == reads.revision:
        return None
    for key, was_there in reads.keys.items():
        modified = writer.modified(key)
        if modified > reads.revision or bool(modified) != was_there:
            return Conflict(key, modified)
    for scanned in reads.ranges:
        count = 0
        for key, modified in writer.modified_in(scanned.start, scanned.end):
            count += 1
            if modified > reads.revision:
                return Conflict(key, modified)
        if count != scanned.count:
            return Conflict(scanned.start, writer.revision)
    return None


def _record(writes: Writes) -> bytes | None:
    """Return what the history keeps of a transaction; None for one larger than the history, which empties it.

    LMDB does not write pages that one transaction takes and lets go, so its file may then end before its last page.
    """
    record = msgspec.msgpack.encode(list(writes.items()))
    return record if len(record) <= HISTORY_BYTES_MAX else None


def _check(writes: Writes) -> None:
    for key, value in writes.items():
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise UsageError("key has a bad length", expected=f"1 to {KEY_BYTES_MAX} bytes", got=str(len(key)))
        if value is not None and len(value) > VALUE_BYTES_MAX:
            raise UsageError("value is too long", expected=f"at most {VALUE_BYTES_MAX} bytes", got=str(len(value)))


def bounds(prefix: bytes, after: bytes) -> tuple[bytes, bytes]:
    """Return the range [start, end) of keys that begin with `prefix` and lie behind `after`; an empty end is none."""
    start = after + b"\0" if after >= prefix and after else prefix
    return start, prefix_end(prefix)


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with `prefix`; empty when there is none."""
    short = prefix.rstrip(b"\xff")
    return short[:-1] + bytes([short[-1] + 1]) if short else b""


def trimmed(sizes: Iterator[tuple[int, int]], total_bytes: int) -> list[int]:
    """Return the revisions, oldest first, to drop until the history's bytes are within its limit."""
    dropped = []
    for revision, size_bytes in sizes:
        if total_bytes <= HISTORY_BYTES_MAX:
            break
        dropped.append(revision)
        total_bytes -= size_bytes
    return dropped
