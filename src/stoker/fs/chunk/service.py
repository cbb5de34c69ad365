"""What a chunk server does for those who ask: each operation over one disk. Knows nothing of sockets."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, Protocol

from stoker.core.errors import CorruptError, StokerError, TransientError, UsageError
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.cells import covering_runs
from stoker.fs.chunk.fencing import Fence
from stoker.fs.chunk.many import cells_of
from stoker.fs.disk.interface import (
    SHARD_BYTES_MAX,
    Bytes,
    HolderStatus,
    ShardHeader,
    ShardHolder,
    ShardId,
    ShardPage,
    check_header,
)
from stoker.fs.wire.budget import Budget, GivenBuffers
from stoker.fs.wire.faults import RoomError, fault_of
from stoker.fs.wire.operations import Asker, FileSpan, FileSpans, Handler, Operation

PULLED_BYTES_MAX: Final = 2 * SHARD_BYTES_MAX
"""Shards that are fetched from other servers at once are in memory whole."""


class CellSpan(Protocol):
    """Whole cells of a shard in a file that stays open until the span is closed."""

    handle: int
    offset: int
    length: int
    first_cell: int
    crcs: bytes
    header: ShardHeader

    def close(self) -> None:
        """Let go of the file."""


class UnverifiedReader(Protocol):
    """A shard that is open for reading, whose bytes are verified at the other end."""

    header: ShardHeader

    def unverified(self, offset: int, length: int, memory: Callable[[int], memoryview]) -> memoryview:
        """Return bytes as they lie on the disk, perhaps in `memory`."""


class ServedDisk(ShardHolder, Protocol):
    """A holder of shards that also tells where their bytes lie, reads them over, and takes orders for it."""

    def span(self, shard: ShardId, offset: int, length: int) -> CellSpan:
        """Return where the cells that cover a range lie."""

    def reading(self, shard: ShardId) -> AbstractContextManager[UnverifiedReader]:
        """Give a shard that is open for reading."""

    def verify(self, shard: ShardId) -> int | None:
        """Read a whole shard; return its first damaged cell."""


class Source(Protocol):
    """Another chunk server that shards are fetched from."""

    def header(self, shard: ShardId) -> ShardHeader:
        """Return the header of a shard."""

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """Return bytes of a shard, verified."""


class ChunkService:
    """Answers requests from one disk; `source_at` gives the chunk server at an address, to fetch from."""

    def __init__(
        self,
        disk: ServedDisk,
        fence: Fence,
        source_at: Callable[[str], Source],
        scrub: Callable[[int], None],
    ) -> None:
        self._disk, self._fence, self._source_at, self._scrub = disk, fence, source_at, scrub
        self._suspects: set[ShardId] = set()
        self._pulling = Budget(PULLED_BYTES_MAX)
        self._buffers = GivenBuffers()

    def handlers(self) -> Mapping[Operation[Any, Any], Handler]:
        """Return what is to be done for each operation."""
        return {
            ops.PUT: self._put,
            ops.GET: self._get,
            ops.HEADER: self._header,
            ops.SYNC: self._sync,
            ops.REMOVE: self._remove,
            ops.LISTING: self._listing,
            ops.STATUS: self._status,
            ops.CHECK: self._check,
            ops.SCRUB: self._set_scrub,
            ops.PULL: self._pull,
            ops.GET_MANY: self._get_many,
        }

    def _put(self, asked: ops.Put, payload: memoryview, asker: Asker) -> tuple[ops.Nothing, Sequence[Bytes]]:
        self._fence.check("put")
        check_header(asked.header)
        self._disk.put(asked.header, [payload], durable=asked.durable)
        return ops.Nothing(), ()

    def _get(self, asked: ops.Get, payload: memoryview, asker: Asker) -> tuple[ops.Cells, FileSpans | Sequence[Bytes]]:
        _check_count(len(asked.ranges), ops.RANGES_AT_ONCE_MAX, "ranges")
        self._look_over(asked.shard)
        with ExitStack() as held:
            spans = self._spans(asked, held)
            told = [(span.first_cell, bytes(span.crcs)) for span in spans if span.length]
            files = [FileSpan(span.handle, span.offset, span.length) for span in spans if span.length]
            cells = cells_of(spans[0].header, told)
            return cells, FileSpans(files, held.pop_all().close, lambda _: self._suspects.add(asked.shard))

    def _get_many(self, asked: ops.GetMany, payload: memoryview, asker: Asker) -> tuple[ops.ManyCells, list[Bytes]]:
        """Collect cells in memory: to send so many small ones each by itself would cost more than to copy them."""
        _check_count(len(asked.wanted), ops.GET_MANY_SHARDS_MAX, "shards")
        _check_count(sum(len(one.ranges) for one in asked.wanted), ops.RANGES_AT_ONCE_MAX, "ranges")
        left_bytes = min(asker.room_bytes, ops.GET_MANY_BYTES_MAX)
        found: list[ops.OneOfMany] = []
        parts: list[Bytes] = []
        for one in asked.wanted:
            try:
                cells, some = self._cells(one, left_bytes)
            except StokerError as error:
                found.append(ops.OneOfMany(fault=fault_of(error, "get")))
                continue
            found.append(ops.OneOfMany(cells))
            left_bytes -= sum(len(part) for part in some)
            parts += some
        return ops.ManyCells(found), parts

    def _cells(self, asked: ops.Get, room_bytes: int) -> tuple[ops.Cells, list[memoryview]]:
        """Return the cells of one shard. Raises RoomError when they are more than there is room for."""
        with self._disk.reading(asked.shard) as reader:
            header = reader.header
            runs = covering_runs(asked.ranges, header.cell_bytes, header.shard_bytes)
            if sum(run.stop - run.start for run in runs) > room_bytes:
                raise RoomError("answer is larger than there is room for", where=str(asked.shard))
            parts = [reader.unverified(run.start, run.stop - run.start, self._buffers.give) for run in runs]
            return cells_of(header, [(run.first, header.crcs[4 * run.first : 4 * run.end]) for run in runs]), parts

    def _look_over(self, shard: ShardId) -> None:
        """Raise what is wrong with a shard that could not be sent to its end the last time."""
        if shard not in self._suspects:
            return
        cell = self._disk.verify(shard)
        if cell is not None:
            raise CorruptError(
                "bytes of a shard do not fit its checksum",
                where=f"{shard} on disk {self._disk.status().disk}",
                got=f"a difference in cell {cell}",
            )
        self._suspects.discard(shard)

    def _spans(self, asked: ops.Get, held: ExitStack) -> list[CellSpan]:
        """Return the cells that are asked for, one span at least; all are closed with `held`."""

        def opened(offset: int, length: int) -> CellSpan:
            span = self._disk.span(asked.shard, offset, length)
            held.callback(span.close)
            return span

        first = opened(*(asked.ranges[0] if asked.ranges else (0, 0)))
        runs = covering_runs(asked.ranges, first.header.cell_bytes, first.header.shard_bytes)
        if len(runs) == 1 and (first.first_cell, first.length) == (runs[0].first, runs[0].stop - runs[0].start):
            return [first]
        return [opened(run.start, run.stop - run.start) for run in runs] or [first]

    def _header(self, asked: ShardId, payload: memoryview, asker: Asker) -> tuple[ShardHeader, Sequence[Bytes]]:
        return self._disk.header(asked), ()

    def _check(self, asked: ShardId, payload: memoryview, asker: Asker) -> tuple[ops.Checked, Sequence[Bytes]]:
        return ops.Checked(self._disk.verify(asked)), ()

    def _sync(self, asked: ops.Shards, payload: memoryview, asker: Asker) -> tuple[ops.Nothing, Sequence[Bytes]]:
        _check_count(len(asked.shards), ops.SHARDS_AT_ONCE_MAX, "shards")
        self._disk.sync(asked.shards)
        return ops.Nothing(), ()

    def _remove(self, asked: ops.Shards, payload: memoryview, asker: Asker) -> tuple[ops.Nothing, Sequence[Bytes]]:
        self._fence.check("remove")
        _check_count(len(asked.shards), ops.SHARDS_AT_ONCE_MAX, "shards")
        self._disk.remove(asked.shards)
        return ops.Nothing(), ()

    def _listing(self, asked: ops.List, payload: memoryview, asker: Asker) -> tuple[ShardPage, Sequence[Bytes]]:
        _check_count(asked.limit, ops.PAGE_MAX, "headers")
        if asked.limit < 1:
            raise UsageError("page of a listing is empty", got=str(asked.limit))
        return self._disk.listing(asked.after, asked.limit), ()

    def _status(self, asked: ops.Nothing, payload: memoryview, asker: Asker) -> tuple[HolderStatus, Sequence[Bytes]]:
        return self._disk.status(), ()

    def _set_scrub(self, asked: ops.Scrub, payload: memoryview, asker: Asker) -> tuple[ops.Nothing, Sequence[Bytes]]:
        self._scrub(asked.bytes_per_second)
        return ops.Nothing(), ()

    def _pull(self, asked: ops.Pull, payload: memoryview, asker: Asker) -> tuple[ops.Nothing, Sequence[Bytes]]:
        """Copy a shard from another server; its bytes are verified when they come, and by the disk once more."""
        self._fence.check("pull")
        source = self._source_at(asked.source)
        header = source.header(asked.shard)
        check_header(header)
        if header.shard != asked.shard:
            raise CorruptError(
                "server sent the header of another shard", where=asked.source, expected=str(asked.shard),
                got=str(header.shard),
            )  # fmt: skip
        if not self._pulling.take(header.shard_bytes, asker.within_seconds):
            raise TransientError("the server pulls as much as it has room for", where=str(asked.shard))
        try:
            parts = source.get(asked.shard, [(0, header.shard_bytes)])
            self._disk.put(header, parts, durable=asked.durable)
        finally:
            self._pulling.give(header.shard_bytes)
        return ops.Nothing(), ()


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise UsageError("too much is asked for at once", expected=f"{limit} {what} at most", got=str(count))
