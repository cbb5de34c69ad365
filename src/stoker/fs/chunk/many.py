"""Cells of many shards in one answer: how a server collects them, and what a client makes of what came."""

from collections.abc import Sequence

import numpy as np

from stoker.core.errors import CorruptError, StokerError
from stoker.fs.chunk import operations as ops
from stoker.fs.chunk.cells import Run, check_shape, check_sizes, covering_runs, cut
from stoker.fs.disk.interface import Found, Outcome, ShardHeader, ShardId, Wanted
from stoker.fs.wire.faults import RoomError, error_of
from stoker.kernels.checking import crc32c_many


def cells_of(header: ShardHeader, told: list[tuple[int, bytes]]) -> ops.Cells:
    """Return what an answer tells of a shard, besides its bytes."""
    return ops.Cells(
        header.cell_bytes, header.shard_bytes, told, header.storage_class, header.k, header.m, header.slice_bytes
    )


def header_in(shard: ShardId, cells: ops.Cells) -> ShardHeader | None:
    """Return the shard's header, without volume and checksums, from an answer; None when the server tells none."""
    if not cells.k:
        return None
    return ShardHeader(
        "", shard, cells.storage_class, cells.k, cells.m, cells.cell_bytes, cells.slice_bytes, cells.shard_bytes, b""
    )


def runs_in(
    cells: ops.Cells, ranges: Sequence[tuple[int, int]], payload_bytes: int | None, where: str
) -> Sequence[Run]:
    """Return the runs that an answer holds. Raises CorruptError unless they are those that were asked for.

    `payload_bytes` is None where other shards' bytes follow.
    """
    try:
        check_sizes(cells.cell_bytes, cells.shard_bytes)
        runs = covering_runs(ranges, cells.cell_bytes, cells.shard_bytes)
        told_bytes = sum(run.stop - run.start for run in runs) if payload_bytes is None else payload_bytes
        check_shape(cells.runs, runs, told_bytes)
    except StokerError as error:
        raise CorruptError(error.what, where=where, got=error.got) from error
    return runs


class ManyAnswer:
    """What came of many shards; every byte of it is verified before any is given."""

    def __init__(self, wanted: Sequence[Wanted], told: ops.ManyCells, payload: memoryview, address: str) -> None:
        """Raises CorruptError for an answer to another question."""
        if len(told.found) != len(wanted):
            raise CorruptError(
                "answer does not tell of the shards that were asked for", where=address, expected=f"{len(wanted)}",
                got=f"{len(told.found)}",
            )  # fmt: skip
        self._payload, self._address = payload, address
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._crcs: list[bytes] = []
        self._owners: list[int] = []
        self._at = 0
        self._outcomes: list[Outcome | None] = [
            self._one(number, one, found) for number, (one, found) in enumerate(zip(wanted, told.found, strict=True))
        ]
        if self._at != len(payload):
            raise CorruptError("answer does not end with its last shard", where=address)

    def outcomes(self) -> list[Outcome | None]:
        """Return what came of each shard; None where it must be asked for by itself."""
        crcs = crc32c_many(self._payload, self._starts, self._lengths).astype(">u4").tobytes()
        told = b"".join(self._crcs)
        if crcs != told:
            differs = np.frombuffer(crcs, np.uint32) != np.frombuffer(told, np.uint32)
            for cell in np.flatnonzero(differs).tolist():
                self._outcomes[self._owners[cell]] = None
        return self._outcomes

    def _one(self, number: int, wanted: Wanted, found: ops.OneOfMany) -> Outcome | None:
        where = f"{wanted.shard} from {self._address}"
        if found.fault is not None:
            error = error_of(found.fault)
            return None if isinstance(error, RoomError) else error
        if found.cells is None:
            raise CorruptError("answer tells nothing of a shard", where=where)
        runs = runs_in(found.cells, wanted.ranges, None, where)
        header = header_in(wanted.shard, found.cells)
        if wanted.checked and header is None:
            raise CorruptError("answer tells no header", where=where)
        start = self._at
        for run, (_, crcs) in zip(runs, found.cells.runs, strict=True):
            self._note(number, run, crcs, found.cells.cell_bytes)
        if self._at > len(self._payload):
            raise CorruptError("answer ends before its last shard", where=where)
        return Found(cut(self._payload[start : self._at], runs, wanted.ranges), header)

    def _note(self, number: int, run: Run, crcs: bytes, cell_bytes: int) -> None:
        """Note the cells of a run, to be verified together with all others."""
        stop = self._at + run.stop - run.start
        starts = range(self._at, stop, cell_bytes)
        self._starts += starts
        self._lengths += [min(cell_bytes, stop - start) for start in starts]
        self._owners += [number] * len(starts)
        self._crcs.append(crcs)
        self._at = stop


def room_for(wanted: Sequence[Wanted], unknown_bytes: int) -> int:
    """Return the room that an answer needs; of shards whose cells are not known about `unknown_bytes` a range more."""
    return sum(
        one.room_bytes or sum(max(0, length) + unknown_bytes for _, length in one.ranges) for one in wanted
    )  # fmt: skip
