"""Keys and values in this process's memory, with every version that an open snapshot needs.

`memory://` is an engine of its own each time; `memory://NAME` is the same one for whoever names it in this process.
"""

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stoker.core.errors import UsageError
from stoker.fs.meta.engines.urls import EngineURL
from stoker.fs.meta.kv import Copy, Pair, Snapshot, Writer, Writes, bounds, trimmed

Version = tuple[int, bytes | None]


class MemoryState:
    """The versions of all keys, newest last; shared by the engines of one name."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.revision = 0
        self.keys: list[bytes] = []
        self.versions: dict[bytes, list[Version]] = {}
        self.open: dict[int, int] = {}
        self.stale: set[bytes] = set()  # keys with versions that only open snapshots need
        self.history: dict[int, bytes] = {}
        self.history_bytes = 0
        self.floor = 0
        self.mark = b""

    def at(self, key: bytes, revision: int) -> bytes | None:
        """Return the value of `key` as of `revision`."""
        for written, value in reversed(self.versions.get(key, ())):
            if written <= revision:
                return value
        return None

    def between(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Return the keys of [start, end), those that only a snapshot still sees too."""
        place = bisect_left(self.keys, start)
        last = bisect_left(self.keys, end) if end else len(self.keys)
        yield from self.keys[place:last]

    def put(self, key: bytes, value: bytes | None, revision: int) -> None:
        """Add a version and drop those that no snapshot needs."""
        chain = self.versions.get(key)
        if chain is None:
            if value is None:
                return
            insort(self.keys, key)
            chain = self.versions[key] = []
        chain.append((revision, value))
        self.prune(key, chain)
        if len(chain) > 1 or value is None:
            self.stale.add(key)

    def prune(self, key: bytes, chain: list[Version]) -> None:
        """Keep, for the oldest open snapshot, the version it sees and all newer ones."""
        oldest = min(self.open, default=chain[-1][0])
        while len(chain) > 1 and chain[1][0] <= oldest:
            del chain[0]
        if len(chain) == 1 and chain[0][1] is None and chain[0][0] <= oldest:
            del self.versions[key]
            del self.keys[bisect_left(self.keys, key)]

    def sweep(self) -> None:
        """Drop what only snapshots needed, now that none is open."""
        for key in self.stale:
            chain = self.versions.get(key)
            if chain is not None:
                self.prune(key, chain)
        self.stale.clear()

    def remember(self, revision: int, record: bytes | None) -> None:
        """Keep the record of a transaction; None forgets all of them."""
        if record is None:
            self.history.clear()
            self.history_bytes, self.floor = 0, revision
            return
        self.history[revision] = record
        self.history_bytes += len(record)
        for old in trimmed(((r, len(v)) for r, v in self.history.items()), self.history_bytes):
            self.history_bytes -= len(self.history.pop(old))
            self.floor = old


class MemorySnapshot(Snapshot):
    """The state at one revision."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        with state.lock:
            self.revision = state.revision
            state.open[self.revision] = state.open.get(self.revision, 0) + 1
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        with self._state.lock:
            return self._state.at(key, self.revision)

    def scan(self, prefix: bytes, after: bytes = b"", limit: int | None = None) -> list[Pair]:
        """Return pairs in order."""
        found: list[Pair] = []
        with self._state.lock:
            for key in self._state.between(*bounds(prefix, after)):
                if limit is not None and len(found) >= limit:
                    break
                value = self._state.at(key, self.revision)
                if value is not None:
                    found.append((key, value))
        return found

    def close(self) -> None:
        """Let the snapshot go, and with the last open one all versions that only snapshots needed."""
        if self._closed:
            return
        self._closed = True
        with self._state.lock:
            self._state.open[self.revision] -= 1
            if not self._state.open[self.revision]:
                del self._state.open[self.revision]
            if not self._state.open:
                self._state.sweep()


class _MemoryWriter:
    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self.revision = state.revision

    def modified(self, key: bytes) -> int:
        chain = self._state.versions.get(key)
        return chain[-1][0] if chain and chain[-1][1] is not None else 0

    def modified_in(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, int]]:
        for key in self._state.between(start, end):
            if modified := self.modified(key):
                yield key, modified

    def apply(self, revision: int, writes: Writes, record: bytes | None) -> None:
        for key, value in writes.items():
            self._state.put(key, value, revision)
        self._state.remember(revision, record)
        self._state.revision = revision


class MemoryEngine(Copy):
    """An engine over a state in memory."""

    name = "memory"

    def __init__(self, state: MemoryState, url: str) -> None:
        super().__init__()
        self._state = state
        self.url = url

    def snapshot(self) -> MemorySnapshot:
        """Return the state as of the newest commit."""
        return MemorySnapshot(self._state)

    def revision(self) -> int:
        """Return the newest revision."""
        return self._state.revision

    @contextmanager
    def _writing(self) -> Iterator[_MemoryWriter]:
        # `apply` is the last thing that happens inside and cannot fail half-way: there is nothing to undo.
        with self._state.lock:
            yield _MemoryWriter(self._state)

    def mark(self) -> bytes:
        """Return the mark of the newest replay."""
        return self._state.mark

    def marked_snapshot(self) -> tuple[bytes, Snapshot]:
        """Return a snapshot with its mark."""
        with self._state.lock:
            return self._state.mark, self.snapshot()

    @contextmanager
    def reading(self) -> Iterator[Writer]:
        """Give what reads are checked against."""
        with self._state.lock:
            yield _MemoryWriter(self._state)

    def _set_mark(self, writer: Writer, mark: bytes) -> None:
        self._state.mark = mark

    def _history(self, after: int, limit: int) -> tuple[int, list[tuple[int, bytes]]]:
        with self._state.lock:
            found = [(r, record) for r, record in self._state.history.items() if r > after]
            return self._state.floor, found[:limit]

    def close(self) -> None:
        """Keep the state: it lives as long as its process, or as whoever holds it."""


_named: Final[dict[str, MemoryState]] = {}
_naming: Final = threading.Lock()


def open_memory(url: EngineURL) -> MemoryEngine:
    """Open `memory://` or `memory://NAME`. Raises UsageError for a name nobody has made, or that is made already."""
    url.options({})
    name = url.place
    if not name:
        return MemoryEngine(MemoryState(), url.text)
    with _naming:
        if url.create and name in _named:
            raise UsageError("a volume of this name is in memory already", where=url.text)
        if not url.create and name not in _named:
            raise UsageError("no volume of this name is in memory", where=url.text, remedy="format one first")
        return MemoryEngine(_named.setdefault(name, MemoryState()), url.text)
