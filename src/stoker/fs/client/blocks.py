"""Slices by blocks: kept in memory, the least recently used go first. Slices never change, so nothing gets stale."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from stoker.core.errors import ShortReadError, StokerError
from stoker.core.units import MiB
from stoker.fs.client.counters import Counters
from stoker.fs.client.diskcache import DiskCache
from stoker.fs.client.options import ClientOptions
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SMALL_CELL_BYTES, SMALL_SLICE_BYTES, Bytes, SliceRange, SliceStore

Key = tuple[Slice, int]
"""A slice and the number of a block in it."""
Flight = Future[dict[Key, Bytes]]
"""Blocks that are being fetched together."""
_PASSED_BYTES_MAX: Final = 16 * MiB


class BlockCache:
    """Blocks in memory, at most `capacity_bytes` of them.

    What somebody reads in order, and goes past for good, is put aside: little of that is kept (`passed_bytes`), so that
    its memory is used again at once, while it is still in the processor's caches, and pushes out nothing else.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.passed_bytes = min(capacity_bytes // 16, _PASSED_BYTES_MAX)
        self.held_bytes = 0
        self._blocks: OrderedDict[Key, Bytes] = OrderedDict()
        self._passed: OrderedDict[Key, Bytes] = OrderedDict()
        self._put_aside_bytes = 0
        self._mutex = threading.Lock()

    def get(self, key: Key) -> Bytes | None:
        """Return a block, None when it is not here."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Iterable[Key]) -> dict[Key, Bytes]:
        """Return those blocks that are here."""
        found: dict[Key, Bytes] = {}
        with self._mutex:
            for key in keys:
                block = self._blocks.get(key)
                if block is not None:
                    self._blocks.move_to_end(key)
                else:
                    block = self._passed.get(key)
                if block is not None:
                    found[key] = block
        return found

    def put(self, key: Key, block: Bytes) -> None:
        """Keep a block, unless it alone is more than there is room for."""
        self.put_all({key: block})

    def put_all(self, blocks: Mapping[Key, Bytes]) -> None:
        """Keep blocks; what was put aside goes before what was not."""
        with self._mutex:
            for key, block in blocks.items():
                if len(block) <= self.capacity_bytes:
                    self._take_out(key)
                    self._blocks[key] = block
                    self.held_bytes += len(block)
            while self.held_bytes > self.capacity_bytes:
                self._take_out(next(iter(self._passed or self._blocks)))

    def put_aside(self, keys: Iterable[Key]) -> None:
        """Note that whoever read these blocks has gone past them."""
        with self._mutex:
            for key in keys:
                block = self._blocks.pop(key, None)
                if block is not None:
                    self._passed[key] = block
                    self._put_aside_bytes += len(block)
            while self._put_aside_bytes > self.passed_bytes:
                self._take_out(next(iter(self._passed)))

    def _take_out(self, key: Key) -> None:
        """Forget a block, if it is here; called with the lock held."""
        block = self._blocks.pop(key, None)
        if block is None:
            block = self._passed.pop(key, None)
            if block is None:
                return
            self._put_aside_bytes -= len(block)
        self.held_bytes -= len(block)

    def clear(self) -> None:
        """Forget everything: whoever closes wants the memory back now."""
        with self._mutex:
            self._blocks.clear()
            self._passed.clear()
            self.held_bytes = self._put_aside_bytes = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._blocks or key in self._passed


class BlockReader:
    """Reads parts of slices through the caches; a block that several want at once is fetched once."""

    def __init__(self, store: SliceStore, options: ClientOptions, counters: Counters) -> None:
        self._store = store
        self._options = options
        self._counters = counters
        self.cache = BlockCache(options.cache_bytes)
        self.disk: DiskCache | None = None
        self._flying: dict[Key, Flight] = {}
        self._mutex = threading.Lock()

    def read(self, ranges: Sequence[SliceRange], *, passing: bool = False) -> list[list[Bytes]]:
        """Return the bytes of each range, in pieces. Raises what the store raises.

        `passing` tells that the reader goes through in order and does not come back to what it has read.
        """
        if not self.cache.capacity_bytes:
            parts = _checked(ranges, self._store.read(ranges)) if ranges else []
            self._counters.fetched_bytes += sum(len(part) for part in parts)
            return [[part] for part in parts]
        wanted = [list(self._keys(one)) for one in ranges]
        blocks = self._blocks({key: None for keys in wanted for key in keys})
        if passing:
            for one, keys in zip(ranges, wanted, strict=True):
                self.cache.put_aside(self._gone(one, keys))
        return [
            [self._cut(one, key, blocks[key]) for key in keys] for one, keys in zip(ranges, wanted, strict=True)
        ]  # fmt: skip

    def _gone(self, one: SliceRange, keys: list[Key]) -> list[Key]:
        """Return the blocks that a range reads to their end."""
        stop = one.offset + one.length
        ends_within = stop % self._block_bytes(one.slice) and stop != one.slice.size_bytes
        return keys[:-1] if ends_within else keys

    def fetch_ahead(self, ranges: Sequence[SliceRange]) -> int:
        """Fill the memory with what is not there; return how many bytes came."""
        keys = {key: None for one in ranges for key in self._keys(one) if key not in self.cache}
        found = self._blocks(keys, ahead=True)
        return sum(len(block) for block in found.values())

    def _block_bytes(self, data: Slice) -> int:
        """Return how large blocks of a slice are: of what may be a pack no more is read than a checksum covers."""
        whole_bytes = self._options.block_bytes
        return whole_bytes if data.size_bytes > SMALL_SLICE_BYTES else min(whole_bytes, SMALL_CELL_BYTES)

    def _keys(self, one: SliceRange) -> "list[Key]":
        block_bytes = self._block_bytes(one.slice)
        first, last = one.offset // block_bytes, (one.offset + max(one.length, 1) - 1) // block_bytes
        return [(one.slice, number) for number in range(first, last + 1)]

    def _range(self, key: Key) -> SliceRange:
        block_bytes = self._block_bytes(key[0])
        offset = key[1] * block_bytes
        return SliceRange(key[0], offset, min(block_bytes, key[0].size_bytes - offset))

    def _cut(self, one: SliceRange, key: Key, block: Bytes) -> Bytes:
        start = key[1] * self._block_bytes(key[0])
        low, high = max(one.offset - start, 0), min(one.offset + one.length - start, len(block))
        return block if (low, high) == (0, len(block)) else memoryview(block)[low:high]

    def _blocks(self, keys: dict[Key, None], *, ahead: bool = False) -> dict[Key, Bytes]:
        """Return blocks, from memory, from who fetches them already, from the disk cache, from the store."""
        found = self.cache.get_all(keys)
        missing = [key for key in keys if key not in found] if len(found) < len(keys) else []
        ours, theirs = self._claimed(missing) if missing else (None, {})
        if not ahead:
            self._counters.memory_hits += len(found)
            self._counters.memory_misses += len(missing) - len(theirs)
            self._counters.shared_reads += len(theirs)
        if ours is not None:
            found.update(self._fetch([key for key in missing if key not in theirs], ours))
        for key, flight in theirs.items():
            found[key] = self._shared(key, flight)
        return found

    def _claimed(self, keys: Sequence[Key]) -> tuple[Flight | None, dict[Key, Flight]]:
        """Return the flight in which we fetch what nobody does, None when there is no such block; and others'."""
        ours: Flight = Future()
        theirs: dict[Key, Flight] = {}
        with self._mutex:
            for key in keys:
                flight = self._flying.setdefault(key, ours)
                if flight is not ours:
                    theirs[key] = flight
        return (ours if len(theirs) < len(keys) else None), theirs

    def _shared(self, key: Key, flight: Flight) -> Bytes:
        """Wait for who fetches a block; fetch it anew when that failed: the error may be his alone."""
        try:
            return flight.result()[key]
        except StokerError:
            return self._from_store([key])[key]

    def _fetch(self, keys: list[Key], ours: Flight) -> dict[Key, Bytes]:
        """Fetch blocks that others may wait for: whatever happens they are told."""
        try:
            found = self._from_disk(keys)
            found.update(self._from_store([key for key in keys if key not in found]))
        except BaseException as error:
            self._landed(keys)
            ours.set_exception(error if isinstance(error, StokerError) else ShortReadError("read was interrupted"))
            raise
        self.cache.put_all(found)
        self._landed(keys)
        ours.set_result(found)
        return found

    def _landed(self, keys: Iterable[Key]) -> None:
        with self._mutex:
            for key in keys:
                del self._flying[key]

    def _from_disk(self, keys: list[Key]) -> dict[Key, Bytes]:
        if self.disk is None:
            return {}
        found = {key: block for key in keys if (block := self.disk.get(*key, self._range(key).length)) is not None}
        self._counters.disk_hits += len(found)
        self._counters.disk_misses += len(keys) - len(found)
        return found

    def _from_store(self, keys: list[Key]) -> dict[Key, Bytes]:
        if not keys:
            return {}
        ranges = [self._range(key) for key in keys]
        blocks = dict(zip(keys, _checked(ranges, self._store.read(ranges)), strict=True))
        self._counters.fetched_bytes += sum(one.length for one in ranges)
        if self.disk is not None:
            for key, block in blocks.items():
                self.disk.put(*key, block)
        return blocks


def _checked(ranges: Sequence[SliceRange], parts: Sequence[Bytes]) -> Sequence[Bytes]:
    """Return what a store gave. Raises ShortReadError unless each part has its length: it is never data."""
    for one, part in zip(ranges, parts, strict=True):
        if len(part) != one.length:
            raise ShortReadError(
                "store gave another number of bytes than asked for",
                where=f"slice {one.slice.id} generation {one.slice.generation}",
                expected=f"{one.length} bytes",
                got=f"{len(part)} bytes",
            )
    return parts
