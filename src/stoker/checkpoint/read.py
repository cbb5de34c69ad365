"""Reading one rank's files back: several pieces under way at once, each in memory of its own, verified as asked."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from stoker.checkpoint.timing import StageClock
from stoker.checkpoint.write import Shard
from stoker.core import clock
from stoker.core.errors import CorruptError, InterruptedRunError, UsageError
from stoker.core.ledger import Ledger
from stoker.storage.api import KnowsResidency, Store, SupportsCache, fill
from stoker.storage.buffers import aligned_view

UNCACHED_MODES: Final = ("direct", "network")


class _Piece(NamedTuple):
    shard: Shard
    offset: int
    length: int
    verified: bool


class Reader:
    """Reads shards, again and again, with the same memory. One load at a time.

    `depth` pieces of `piece_bytes` are under way at once, a thread each; `verify_ratio` of all pieces are held against
    what was written, each file's first one always unless the ratio is 0.
    """

    def __init__(self, store: Store, *, depth: int, piece_bytes: int, verify_ratio: float) -> None:
        if depth < 1 or piece_bytes < 1:
            raise UsageError("reading needs at least one piece of one byte", got=f"{depth} of {piece_bytes} bytes")
        self._store, self._piece_bytes, self._verify_ratio = store, piece_bytes, verify_ratio
        self._room = [aligned_view(piece_bytes) for _ in range(depth)]
        self._scratch = [aligned_view(piece_bytes if verify_ratio > 0 else 0) for _ in range(depth)]

    @property
    def memory_bytes(self) -> int:
        """Return the memory that reading takes."""
        return sum(view.nbytes for view in (*self._room, *self._scratch))

    def read(
        self,
        shards: Sequence[Shard],
        clock_of: StageClock,
        ledger: Ledger,
        *,
        on_bytes: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Read all shards, enter every byte in `ledger`, and return how many bytes were verified.

        Raises CorruptError for a file of another size than it was written with and for other bytes, what the store
        raises, and InterruptedRunError when `stopped` says so.
        """
        load = _Load(self._store, self._pieces(shards), clock_of, ledger, on_bytes, stopped)
        places = list(zip(self._room, self._scratch, strict=True))
        others = [threading.Thread(target=load.work, args=place, name="stoker-load") for place in places[1:]]
        for thread in others:
            thread.start()
        load.work(*places[0])
        for thread in others:
            thread.join()
        if load.errors:
            raise load.errors[0]
        if stopped():
            raise InterruptedRunError("reading of the checkpoint was stopped")
        ledger.files_opened += len(shards)
        return load.verified_bytes

    def _pieces(self, shards: Sequence[Shard]) -> Iterator[_Piece]:
        for shard in shards:
            size = shard.file.size_bytes
            for number, offset in enumerate(range(0, max(size, 1), self._piece_bytes)):
                yield _Piece(shard, offset, min(self._piece_bytes, size - offset), self._is_verified(number))

    def _is_verified(self, number: int) -> bool:
        return math.ceil((number + 1) * self._verify_ratio) > math.ceil(number * self._verify_ratio)


class _Load:
    """One load: its pieces are taken by several threads, one at a time each."""

    def __init__(
        self,
        store: Store,
        pieces: Iterator[_Piece],
        clock_of: StageClock,
        ledger: Ledger,
        on_bytes: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._store, self._todo, self._clock, self._ledger = store, pieces, clock_of, ledger
        self._on_bytes, self._stopped = on_bytes, stopped
        self._entering = threading.Lock()
        self.errors: list[BaseException] = []
        self.verified_bytes = 0

    def work(self, room: memoryview, scratch: memoryview) -> None:
        """Read pieces until there are none left, one failed, or the load is to stop."""
        try:
            while (piece := self._next()) is not None:
                into = room[: piece.length]
                cached = self._read(piece, into)
                if piece.verified:
                    self._verify(piece, into, scratch)
                self._enter(piece, cached)
        except BaseException as error:
            self.errors.append(error)

    def _next(self) -> _Piece | None:
        with self._entering:
            return None if self.errors or self._stopped() else next(self._todo, None)

    def _read(self, piece: _Piece, into: memoryview) -> int | None:
        """Fill `into`, and return how much of it the page cache held before, None where nobody knows."""
        key, where = piece.shard.key, self._where(piece)
        start_ns = clock.monotonic_ns()
        with self._store.open_read(key, offset_bytes=piece.offset, length_bytes=piece.length) as reader:
            opened_ns = clock.monotonic_ns()
            if reader.object_bytes != piece.shard.file.size_bytes:
                raise CorruptError(
                    "file of the checkpoint has another size than it was written with",
                    where=where,
                    expected=f"{piece.shard.file.size_bytes} bytes",
                    got=f"{reader.object_bytes} bytes",
                    remedy="write the checkpoint again",
                )
            cached = reader.cached_bytes() if isinstance(reader, KnowsResidency) else self._elsewhere()
            asked_ns = clock.monotonic_ns()
            fill(reader, into, where=where)
        self._clock.add("open", opened_ns - start_ns)
        self._clock.add("read", clock.monotonic_ns() - asked_ns)
        return cached

    def _elsewhere(self) -> int | None:
        return 0 if self._store.capabilities.io_mode in UNCACHED_MODES else None

    def _verify(self, piece: _Piece, got: memoryview, scratch: memoryview) -> None:
        start_ns = clock.monotonic_ns()
        piece.shard.content.require(got, piece.offset, scratch, where=self._where(piece))
        self._clock.add("verify", clock.monotonic_ns() - start_ns)

    def _enter(self, piece: _Piece, cached: int | None) -> None:
        size, ledger = piece.length, self._ledger
        with self._entering:
            ledger.wanted_bytes += size
            ledger.requested_bytes += size
            ledger.delivered_bytes += size
            if cached is not None:
                ledger.from_cache_bytes += min(cached, size)
                ledger.from_store_bytes += size - min(cached, size)
            self.verified_bytes += size if piece.verified else 0
            self._on_bytes(size)

    def _where(self, piece: _Piece) -> str:
        return f"{self._store.url} {piece.shard.key}"


def evict(store: Store, shards: Sequence[Shard]) -> bool:
    """Drop the files' clean pages from this host's page cache; return False where the store cannot."""
    if not (isinstance(store, SupportsCache) and store.capabilities.cache_evictable):
        return store.capabilities.io_mode in UNCACHED_MODES
    for shard in shards:
        store.evict(shard.key)
    return True


def resident_bytes(store: Store, shards: Sequence[Shard]) -> int | None:
    """Return how many bytes of the files this host's page cache holds, None when that cannot be told."""
    if not isinstance(store, SupportsCache):
        return None
    found = [store.cached_bytes(shard.key) for shard in shards]
    return None if None in found else sum(each or 0 for each in found)
