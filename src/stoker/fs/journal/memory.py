"""An etcd in this process's memory, with the same revisions, compares, watches and compaction: for tests, simulators
and a single process's volume that needs to outlive nothing.
"""

import queue
import threading
from bisect import bisect_left, insort
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from stoker.core.errors import UsageError
from stoker.fs.journal.etcd import (
    REQUEST_BYTES_MAX,
    Compact,
    CompactedError,
    Compare,
    Delete,
    Get,
    KeyValue,
    MemberStatus,
    Outcome,
    Put,
    Request,
    Seen,
    Txn,
)

_OPERATIONS_MAX: Final = 128  # etcd's own default
_EVENTS_A_TELLING: Final = 1000

Event = tuple[int, KeyValue | None, bytes]
"""Revision, what was written (None where it was deleted), and the key."""


class EtcdState:
    """The state and its one step: a pure state machine, which a simulator drives directly."""

    def __init__(self) -> None:
        self.revision = 1  # as etcd begins
        self.keys: list[bytes] = []
        self.pairs: dict[bytes, KeyValue] = {}
        self.events: list[Event] = []
        self.compacted = 0

    def apply(self, request: Request) -> Outcome:
        """Do a request. Raises CompactedError, UsageError."""
        if isinstance(request, Get):
            request = Txn(then=(request,))
        if isinstance(request, Compact):
            return self._compact(request.revision)
        holds = all(self._holds(compare) for compare in request.compares)
        operations = request.then if holds else request.otherwise
        _check(request)
        writes = self.revision + 1
        found: list[tuple[KeyValue, ...]] = []
        more = False
        for operation in operations:
            if isinstance(operation, Get):
                pairs, left = self._read(operation)
                more = more or (left and not found)
                found.append(pairs)
            elif isinstance(operation, Put):
                self._put(operation, writes)
            else:
                self._delete(operation, writes)
        return Outcome(self.revision, holds, tuple(found), more)

    def _holds(self, compare: Compare) -> bool:
        pair = self.pairs.get(compare.key)
        modified, created = (0, 0) if pair is None else (pair.modified, pair.created)
        return compare.modified in (None, modified) and compare.created in (None, created)

    def _between(self, key: bytes, end: bytes) -> list[bytes]:
        if not end:
            return [key] if key in self.pairs else []
        return self.keys[bisect_left(self.keys, key) : bisect_left(self.keys, end)]

    def _read(self, get: Get) -> tuple[tuple[KeyValue, ...], bool]:
        keys = self._between(get.key, get.end)
        taken = keys[: get.limit] if get.limit else keys
        return tuple(self.pairs[key] for key in taken), len(taken) < len(keys)

    def _put(self, put: Put, revision: int) -> None:
        before = self.pairs.get(put.key)
        if before is None:
            insort(self.keys, put.key)
        pair = KeyValue(put.key, put.value, revision if before is None else before.created, revision)
        self.pairs[put.key] = pair
        self.events.append((revision, pair, put.key))
        self.revision = revision

    def _delete(self, delete: Delete, revision: int) -> None:
        for key in self._between(delete.key, delete.end):
            del self.pairs[key]
            del self.keys[bisect_left(self.keys, key)]
            self.events.append((revision, None, key))
            self.revision = revision

    def _compact(self, revision: int) -> Outcome:
        if revision <= self.compacted:
            raise CompactedError("revision is compacted already", got=str(revision), expected=f"above {self.compacted}")
        if revision > self.revision:
            raise UsageError("revision is not there yet", got=str(revision), expected=f"at most {self.revision}")
        self.compacted = revision
        self.events = [event for event in self.events if event[0] >= revision]
        return Outcome(self.revision)

    def seen(self, start: bytes, end: bytes, after: int) -> Seen | None:
        """Return what changed in a range behind revision `after`, None when nothing did."""
        if after + 1 < self.compacted:
            return Seen(self.revision, compacted=self.compacted)
        place = bisect_left(self.events, after + 1, key=lambda event: event[0])
        chosen = [event for event in self.events[place:] if start <= event[2] < end]
        if not chosen:
            return None
        puts = tuple(pair for _, pair, _ in chosen if pair is not None)
        return Seen(chosen[-1][0], puts, tuple(key for _, pair, key in chosen if pair is None))


def _check(request: Txn) -> None:
    operations = max(len(request.compares), len(request.then), len(request.otherwise))
    size_bytes = sum(len(put.value) for put in request.then if isinstance(put, Put))
    if operations > _OPERATIONS_MAX:
        raise UsageError("too many operations in a transaction", expected=f"{_OPERATIONS_MAX}", got=str(operations))
    if size_bytes > REQUEST_BYTES_MAX:
        raise UsageError("request is too large", expected=f"{REQUEST_BYTES_MAX} bytes", got=str(size_bytes))


class MemoryEtcd:
    """The state behind the Protocol."""

    def __init__(self) -> None:
        self.state = EtcdState()
        self._lock = threading.Lock()
        self._watches: list[_MemoryWatch] = []

    def begin(self, request: Request) -> "Future[Outcome]":
        """Do a request at once."""
        future: Future[Outcome] = Future()
        try:
            with self._lock:
                outcome = self.state.apply(request)
                watches = list(self._watches)
        except (CompactedError, UsageError) as error:
            future.set_exception(error)
            return future
        for watch in watches:
            watch.wake.put(None)
        future.set_result(outcome)
        return future

    def watch(self, start: bytes, end: bytes, after: int) -> "_MemoryWatch":
        """Watch a range."""

        def look(behind: int) -> Seen | None:
            with self._lock:
                return self.state.seen(start, end, behind)

        watch = _MemoryWatch(look, after, self._forget)
        with self._lock:
            self._watches.append(watch)
        return watch

    def _forget(self, watch: "_MemoryWatch") -> None:
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def members(self) -> list[MemberStatus]:
        """Return the one member that there is."""
        return [MemberStatus("memory", answers=True, version="memory", leads=True)]

    def close(self) -> None:
        """Keep the state: it lives as long as who holds it."""


class _MemoryWatch:
    def __init__(
        self, look: Callable[[int], Seen | None], after: int, forget: Callable[["_MemoryWatch"], None]
    ) -> None:
        self._look = look
        self._after = after
        self._forget = forget
        self.wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def next(self, timeout_seconds: float) -> Seen | None:
        seen = self._look(self._after)
        if seen is None:
            try:
                self.wake.get(timeout=timeout_seconds)
            except queue.Empty:
                return None
            seen = self._look(self._after)
        if seen is not None:
            self._after = max(seen.revision, seen.compacted - 1)
        return seen

    def close(self) -> None:
        self._forget(self)
        self.wake.put(None)
