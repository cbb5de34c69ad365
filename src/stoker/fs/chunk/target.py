"""A disk behind a network: `ShardHolder` over a connection to a chunk server, verified at this end once more."""

import itertools
from collections.abc import Callable, Sequence
from typing import Final, Self, TypeVar

from stoker.core.errors import CorruptError, StokerError, TransientError, UnavailableError, UsageError
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.cells import Run, bad_cell, cut
from stoker.fs.chunk.many import ManyAnswer, header_in, room_for, runs_in
from stoker.fs.disk.interface import (
    CELL_BYTES,
    SHARD_BYTES_MAX,
    Bytes,
    Found,
    HolderStatus,
    Outcome,
    ShardHeader,
    ShardId,
    ShardPage,
    Wanted,
    check_header,
)
from stoker.fs.wire import AskAgainError, Begun, ClientOptions, Peer
from stoker.fs.wire.faults import UNKNOWN_OPERATION, RoomError
from stoker.fs.wire.keys import Tls
from stoker.fs.wire.operations import Operation

Q = TypeVar("Q")
A = TypeVar("A")
T = TypeVar("T")
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
        tls: Tls | None = None,
        volume: str = "",
        role: str = "client",
        within_seconds: float = WITHIN_SECONDS,
        options: ClientOptions | None = None,
        peer: Peer | None = None,
    ) -> None:
        self.address = address
        self._within_seconds = within_seconds
        self._knows_many = True
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
        return self._get(Wanted(shard, ranges), self._within_seconds).parts

    def _get(self, wanted: Wanted, within_seconds: float) -> Found:
        """Return what `get` does, and the header if it is wanted or comes by itself."""
        shard = wanted.shard
        found = self._got(wanted, within_seconds)
        if found is None:
            self._complain(shard)
            found = self._got(wanted, within_seconds)
        if found is None:
            raise CorruptError("bytes of a shard are damaged on the way", where=f"{shard} from {self.address}")
        if wanted.checked and found.header is None:
            return Found(found.parts, self.header(shard))
        return found

    def _got(self, wanted: Wanted, within_seconds: float) -> Found | None:
        """Return the bytes of each range, None when some do not fit their checksums."""
        asked = ops.Get(wanted.shard, list(wanted.ranges))
        try:
            told, payload = self._peer.call(
                ops.GET, asked, within_seconds=within_seconds, answer_bytes_max=_room([wanted])
            )
        except RoomError:  # cells that are larger than usual
            told, payload = self._peer.call(
                ops.GET, asked, within_seconds=within_seconds, answer_bytes_max=SHARD_BYTES_MAX
            )
        return self._read(wanted, told, payload)

    def _read(self, wanted: Wanted, told: ops.Cells, payload: memoryview) -> Found | None:
        """Return what an answer holds, None when some of it does not fit its checksums. Raises CorruptError."""
        runs = runs_in(told, wanted.ranges, len(payload), f"{wanted.shard} from {self.address}")
        if not _fits(payload, runs, told):
            return None
        return Found(cut(payload, runs, wanted.ranges), header_in(wanted.shard, told))

    def get_many(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Return the bytes of each range of many shards, as `ShardHolder.get_many`, by few requests."""
        return self._get_many(wanted, self._within_seconds)

    def _get_many(self, wanted: Sequence[Wanted], within_seconds: float) -> list[Outcome]:
        found: list[Outcome] = []
        for some in batches(wanted):
            outcomes = self._got_many(some, within_seconds) if len(some) > 1 else [None]
            found += [
                self._alone(one, within_seconds) if outcome is None else outcome
                for one, outcome in zip(some, outcomes, strict=True)
            ]
        return found

    def _got_many(self, wanted: Sequence[Wanted], within_seconds: float) -> Sequence[Outcome | None]:
        """Return what came of each shard; None where it must be asked for by itself."""
        if self._knows_many:
            try:
                told, payload = self._peer.call(
                    ops.GET_MANY, _many(wanted), within_seconds=within_seconds, answer_bytes_max=_room(wanted)
                )
                return ManyAnswer(wanted, told, payload, self.address).outcomes()
            except UsageError as error:
                if error.what != UNKNOWN_OPERATION:
                    raise
                self._knows_many = False
        return [None] * len(wanted)

    def _alone(self, wanted: Wanted, within_seconds: float) -> Outcome:
        try:
            return self._get(wanted, within_seconds)
        except (UnavailableError, TransientError):
            raise
        except StokerError as error:
            return error

    def begin_get_many(self, wanted: Sequence[Wanted]) -> Begun[list[Outcome]] | None:
        """Begin `get_many` without waiting for anything; None where that cannot be."""
        if len(wanted) == 1:
            return self._begin(
                ops.GET, ops.Get(wanted[0].shard, list(wanted[0].ranges)), room_bytes=_room(wanted),
                finish=lambda told, payload: [self._sound(wanted[0], told, payload)],
                again=lambda seconds: self._get_many(wanted, seconds),
            )  # fmt: skip
        if not self._knows_many or len(batches(wanted)) != 1:
            return None
        return self._begin(
            ops.GET_MANY, _many(wanted), room_bytes=_room(wanted),
            finish=lambda told, payload: _all_of(ManyAnswer(wanted, told, payload, self.address).outcomes()),
            again=lambda seconds: self._get_many(wanted, seconds),
        )  # fmt: skip

    def _sound(self, wanted: Wanted, told: ops.Cells, payload: memoryview) -> Found:
        found = self._read(wanted, told, payload)
        if found is None or (wanted.checked and found.header is None):
            raise AskAgainError("bytes of a shard do not fit, or its header is not known")
        return found

    def begin_put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool) -> Begun[None] | None:
        """Begin `put` without waiting for anything; None where that cannot be."""
        check_header(header)
        asked = ops.Put(header, durable)
        return self._begin(
            ops.PUT, asked, parts, finish=_nothing,
            again=lambda seconds: _nothing(*self._peer.call(ops.PUT, asked, parts, within_seconds=seconds)),
        )  # fmt: skip

    def begin_sync(self, shards: Sequence[ShardId]) -> Begun[None] | None:
        """Begin `sync` without waiting for anything; None where that cannot be."""
        if len(shards) > ops.SHARDS_AT_ONCE_MAX:
            return None
        asked = ops.Shards(list(shards))
        return self._begin(
            ops.SYNC, asked, finish=_nothing,
            again=lambda seconds: _nothing(*self._peer.call(ops.SYNC, asked, within_seconds=seconds)),
        )  # fmt: skip

    def _begin(
        self,
        operation: Operation[Q, A],
        request: Q,
        parts: Sequence[Bytes] = (),
        *,
        finish: Callable[[A, memoryview], T],
        again: Callable[[float], T],
        room_bytes: int | None = None,
    ) -> Begun[T] | None:
        return self._peer.begin_now(
            operation, request, parts, finish=finish, again=again, within_seconds=self._within_seconds,
            answer_bytes_max=room_bytes,
        )  # fmt: skip

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

    def close(self) -> None:
        """End the connection. Twice is harmless."""
        self._peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batches(wanted: Sequence[Wanted]) -> list[Sequence[Wanted]]:
    """Return what is wanted in pieces that one request may ask for."""
    found: list[Sequence[Wanted]] = []
    start = ranges = room_bytes = 0
    for number, one in enumerate(wanted):
        ranges += len(one.ranges)
        room_bytes += _room([one])
        over = ranges > ops.RANGES_AT_ONCE_MAX or room_bytes > ops.GET_MANY_BYTES_MAX
        if number > start and (over or number - start >= ops.GET_MANY_SHARDS_MAX):
            found.append(wanted[start:number])
            start, ranges, room_bytes = number, len(one.ranges), _room([one])
    return [*found, wanted[start:]] if wanted else []


def _room(wanted: Sequence[Wanted]) -> int:
    return min(SHARD_BYTES_MAX, room_for(wanted, 2 * CELL_BYTES))


def _many(wanted: Sequence[Wanted]) -> ops.GetMany:
    return ops.GetMany([ops.Get(one.shard, list(one.ranges)) for one in wanted])


def _all_of(outcomes: Sequence[Outcome | None]) -> list[Outcome]:
    found = [outcome for outcome in outcomes if outcome is not None]
    if len(found) != len(outcomes):
        raise AskAgainError("some shards must be asked for by themselves")
    return found


def _nothing(*_: object) -> None:
    """Make nothing of an answer that tells nothing."""


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
