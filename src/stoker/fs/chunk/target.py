"""A disk behind a network: `ShardHolder` over a connection to a chunk server, verified at this end once more."""

import itertools
import ssl
from collections.abc import Sequence
from typing import Final, Self, TypeVar

from stoker.core.errors import CorruptError, StokerError
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.cells import Run, bad_cell, check_shape, check_sizes, covering_runs, cut
from stoker.fs.disk.interface import (
    CELL_BYTES,
    SHARD_BYTES_MAX,
    Bytes,
    HolderStatus,
    ShardHeader,
    ShardId,
    ShardPage,
    check_header,
)
from stoker.fs.wire import ClientOptions, Peer
from stoker.fs.wire.faults import RoomError
from stoker.fs.wire.operations import Operation

Q = TypeVar("Q")
A = TypeVar("A")
WITHIN_SECONDS: Final = 30.0


class Target:
    """The disk of the chunk server at an address. Safe from many threads; connects when first asked.

    Every operation here can be asked again: shards never change, so a put that is repeated is the same put. Requests
    are tried anew over lost connections until `within_seconds` are over; then they raise UnavailableError.
    """

    def __init__(  # noqa: PLR0913 - each by its name
        self,
        address: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        volume: str = "",
        role: str = "client",
        within_seconds: float = WITHIN_SECONDS,
        options: ClientOptions | None = None,
        peer: Peer | None = None,
    ) -> None:
        self.address = address
        self._within_seconds = within_seconds
        self._peer = peer or Peer(address, token=token, tls=tls, volume=volume, role=role, options=options)

    @property
    def healthy(self) -> bool:
        """Tell whether the server may be asked: it answered the last time, or its pause is over."""
        return self._peer.healthy

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> None:
        """Store a shard, as `ShardHolder.put`; the disk verifies the bytes before it answers."""
        check_header(header)
        self._ask(ops.PUT, ops.Put(header, durable), parts)

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """Return the bytes of each range, as `ShardHolder.get`, verified at this end.

        What does not fit its checksum here is read over by the server: CorruptError when it is so on the disk, and
        another attempt when it was not.
        """
        found = self._get(shard, ranges)
        if found is None:
            self._complain(shard)
            found = self._get(shard, ranges)
        if found is None:
            raise CorruptError("bytes of a shard are damaged on the way", where=f"{shard} from {self.address}")
        return found

    def _get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes] | None:
        """Return the bytes of each range, None when some do not fit their checksums."""
        asked = ops.Get(shard, list(ranges))
        room_bytes = min(SHARD_BYTES_MAX, sum(max(0, length) + 2 * CELL_BYTES for _, length in ranges))
        try:
            told, payload = self._asked(ops.GET, asked, room_bytes=room_bytes)
        except RoomError:  # cells that are larger than usual
            told, payload = self._asked(ops.GET, asked, room_bytes=SHARD_BYTES_MAX)
        try:
            check_sizes(told.cell_bytes, told.shard_bytes)
            runs = covering_runs(ranges, told.cell_bytes, told.shard_bytes)
            check_shape(told.runs, runs, len(payload))
        except StokerError as error:
            raise CorruptError(error.what, where=f"{shard} from {self.address}", got=error.got) from error
        return cut(payload, runs, ranges) if _fits(payload, runs, told) else None

    def _complain(self, shard: ShardId) -> None:
        """Have the server read a shard over. Raises CorruptError when it is damaged on the disk."""
        cell = self.check(shard)
        if cell is not None:
            raise CorruptError(
                "bytes of a shard do not fit its checksum",
                where=f"{shard} on disk {self.status().disk} at {self.address}",
                got=f"a difference in cell {cell}",
                remedy="it is repaired from other copies, or by writing it again",
            )

    def check(self, shard: ShardId) -> int | None:
        """Have the server read a whole shard; return its first damaged cell, None when it is sound."""
        return self._ask(ops.CHECK, shard).bad_cell

    def header(self, shard: ShardId) -> ShardHeader:
        """Return the header of a shard. Raises NotFoundError, CorruptError."""
        header = self._ask(ops.HEADER, shard)
        try:
            check_header(header)
        except StokerError as error:
            raise CorruptError("server sent no header of a shard", where=self.address, got=error.got) from error
        if header.shard != shard:
            raise CorruptError("server sent the header of another shard", where=self.address, got=str(header.shard))
        return header

    def sync(self, shards: Sequence[ShardId]) -> None:
        """Return when these shards survive a power failure. Raises NotFoundError, StoreError."""
        for start in range(0, len(shards), ops.SHARDS_AT_ONCE_MAX):
            self._ask(ops.SYNC, ops.Shards(list(shards[start : start + ops.SHARDS_AT_ONCE_MAX])))

    def remove(self, shards: Sequence[ShardId]) -> None:
        """Remove shards for good; those that are not there are removed already."""
        for start in range(0, len(shards), ops.SHARDS_AT_ONCE_MAX):
            self._ask(ops.REMOVE, ops.Shards(list(shards[start : start + ops.SHARDS_AT_ONCE_MAX])))

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        """Return up to `limit` shards behind `after`, fewer where a page would be too large."""
        page = self._ask(ops.LISTING, ops.List(after, min(limit, ops.PAGE_MAX)))
        _check_page(page, after, self.address)
        return page

    def status(self) -> HolderStatus:
        """Return how the disk fares."""
        return self._ask(ops.STATUS, ops.Nothing())

    def scrub(self, bytes_per_second: int) -> None:
        """Have everything read over at no more than so many bytes a second; 0 stops it."""
        self._ask(ops.SCRUB, ops.Scrub(bytes_per_second))

    def pull(self, shard: ShardId, source: str, *, durable: bool) -> None:
        """Have the server fetch a shard from another at the address `source`."""
        self._ask(ops.PULL, ops.Pull(shard, source, durable))

    def _ask(self, operation: Operation[Q, A], request: Q, parts: Sequence[Bytes] = ()) -> A:
        return self._peer.call(operation, request, parts, within_seconds=self._within_seconds)[0]

    def _asked(self, operation: Operation[Q, A], request: Q, *, room_bytes: int) -> tuple[A, memoryview]:
        return self._peer.call(operation, request, within_seconds=self._within_seconds, answer_bytes_max=room_bytes)

    def close(self) -> None:
        """End the connection. Twice is harmless."""
        self._peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fits(payload: memoryview, runs: Sequence[Run], told: ops.Cells) -> bool:
    at = 0
    for run, (first, crcs) in zip(runs, told.runs, strict=True):
        count = run.stop - run.start
        if bad_cell(payload[at : at + count], first, crcs, told.cell_bytes) is not None:
            return False
        at += count
    return True


def _check_page(page: ShardPage, after: ShardId | None, where: str) -> None:
    """Raise CorruptError for a page that goes backwards: whoever follows it would never come to its end."""
    ids = [header.shard for header in page.headers]
    rising = all(first < second for first, second in itertools.pairwise(ids))
    if not rising or (after is not None and ids and ids[0] <= after) or (page.more and not ids):
        raise CorruptError("server sent a listing that is out of order", where=where)
    for header in page.headers:
        check_header(header, bare=True)
