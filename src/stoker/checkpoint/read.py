"""Reading one rank's files back: several pieces under way at once, into the same bounded memory, verified as asked."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from stoker.checkpoint.buffers import Buffers
from stoker.checkpoint.timing import StageClock
from stoker.checkpoint.write import Shard
from stoker.core import clock
from stoker.core.errors import CorruptError, InterruptedRunError
from stoker.core.ledger import Ledger
from stoker.storage.api import Store, SupportsCache
from stoker.storage.buffers import aligned_view
from stoker.storage.submit import ReadRequest, ReadResult, read_many

_NO_CACHE_MODES = ("direct", "network")
# Beside those under way: one request is held ready, one was just made, and one result is being looked at.
_AHEAD = 3


class _Piece(NamedTuple):
    shard: Shard
    offset: int
    verified: bool
    cached_bytes: int | None


class Reader:
    """Reads shards, again and again, with the same memory. One load at a time.

    `depth` pieces of `piece_bytes` are under way at once; `verify_ratio` of all pieces are held against what was
    written, each file's first one always unless the ratio is 0.
    """

    def __init__(self, store: Store, *, depth: int, piece_bytes: int, verify_ratio: float) -> None:
        self._store, self._depth, self._verify_ratio = store, depth, verify_ratio
        self._pool = Buffers(depth + _AHEAD, piece_bytes)
        self._scratch = aligned_view(piece_bytes) if verify_ratio > 0 else memoryview(b"")
        self._asks_cache = isinstance(store, SupportsCache) and store.capabilities.io_mode not in _NO_CACHE_MODES
        self._knows_origin = self._asks_cache or store.capabilities.io_mode in _NO_CACHE_MODES

    @property
    def memory_bytes(self) -> int:
        """Return the most memory that reading takes."""
        return self._pool.count * self._pool.size_bytes + self._scratch.nbytes

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
        self._check_sizes(shards)
        verified = 0
        requests = self._requests(shards, stopped)
        room = self._depth * self._pool.size_bytes
        results = read_many(self._store, requests, in_flight_max=self._depth, in_flight_bytes_max=room)
        with closing(results):
            for result in results:
                piece = result.request.tag
                assert isinstance(piece, _Piece)
                if result.error is not None:
                    raise result.error
                clock_of.add("open", result.opened_ns - result.started_ns)
                clock_of.add("read", result.ended_ns - result.opened_ns)
                verified += self._verify(result, piece, clock_of)
                size = result.data.nbytes
                del result
                self._enter(ledger, piece, size)
                on_bytes(size)
        if stopped():
            raise InterruptedRunError("reading of the checkpoint was stopped")
        ledger.files_opened += len(shards)
        return verified

    def _check_sizes(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            found = self._store.stat(shard.key).size_bytes
            if found != shard.file.size_bytes:
                raise CorruptError(
                    "file of the checkpoint has another size than it was written with",
                    where=f"{self._store.url} {shard.key}",
                    expected=f"{shard.file.size_bytes} bytes",
                    got=f"{found} bytes",
                    remedy="write the checkpoint again",
                )

    def _requests(self, shards: Sequence[Shard], stopped: Callable[[], bool]) -> Iterator[ReadRequest]:
        for shard in shards:
            size, step = shard.file.size_bytes, self._pool.size_bytes
            for number, offset in enumerate(range(0, size, step)):
                view = self._pool.acquire(given_up=stopped)
                if view is None:
                    return
                length = min(step, size - offset)
                piece = _Piece(shard, offset, self._is_verified(number), self._cached(shard.key, offset, length))
                yield ReadRequest(shard.key, offset, into=view[:length], tag=piece)
                del view

    def _is_verified(self, number: int) -> bool:
        return math.ceil((number + 1) * self._verify_ratio) > math.ceil(number * self._verify_ratio)

    def _cached(self, key: str, offset: int, length: int) -> int | None:
        if not self._asks_cache:
            return 0 if self._knows_origin else None
        assert isinstance(self._store, SupportsCache)
        return self._store.cached_bytes(key, offset, length)

    def _verify(self, result: ReadResult, piece: _Piece, clock_of: StageClock) -> int:
        if not piece.verified:
            return 0
        start_ns = clock.monotonic_ns()
        where = f"{self._store.url} {piece.shard.key}"
        piece.shard.content.require(result.data, piece.offset, self._scratch, where=where)
        clock_of.add("verify", clock.monotonic_ns() - start_ns)
        return result.data.nbytes

    def _enter(self, ledger: Ledger, piece: _Piece, size: int) -> None:
        ledger.wanted_bytes += size
        ledger.requested_bytes += size
        ledger.delivered_bytes += size
        if piece.cached_bytes is not None:
            ledger.from_cache_bytes += min(piece.cached_bytes, size)
            ledger.from_store_bytes += size - min(piece.cached_bytes, size)


def evict(store: Store, shards: Sequence[Shard]) -> bool:
    """Drop the files' clean pages from this host's page cache; return False where the store cannot."""
    if not (isinstance(store, SupportsCache) and store.capabilities.cache_evictable):
        return store.capabilities.io_mode in _NO_CACHE_MODES
    for shard in shards:
        store.evict(shard.key)
    return True


def resident_bytes(store: Store, shards: Sequence[Shard]) -> int | None:
    """Return how many bytes of the files this host's page cache holds, None when that cannot be told."""
    if not isinstance(store, SupportsCache):
        return None
    found = [store.cached_bytes(shard.key) for shard in shards]
    return None if None in found else sum(each or 0 for each in found)
