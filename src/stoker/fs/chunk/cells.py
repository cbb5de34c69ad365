"""Which cells cover ranges of a shard, and whether they are what was stored: pure functions of both ends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stoker.core.errors import CorruptError, UsageError
from stoker.fs.disk.interface import CELL_BYTES_MIN, SHARD_BYTES_MAX, Bytes
from stoker.kernels.checking import crc32c_many


class Run(NamedTuple):
    """The cells [first, end) of a shard, and the bytes [start, stop) that they are."""

    first: int
    end: int
    start: int
    stop: int


def covering_runs(ranges: Sequence[tuple[int, int]], cell_bytes: int, shard_bytes: int) -> list[Run]:
    """Return the runs of cells that cover ranges (offset, length), in order; those that touch are one.

    Raises UsageError for a range that leaves the shard.
    """
    joined: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if offset < 0 or length < 0 or offset + length > shard_bytes:
            raise UsageError(
                "range leaves its shard", expected=f"within {shard_bytes} bytes", got=f"{length} bytes at {offset}"
            )
        if not length:
            continue
        first, end = offset // cell_bytes, -(-(offset + length) // cell_bytes)
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((first, end))
    return [Run(first, end, first * cell_bytes, min(end * cell_bytes, shard_bytes)) for first, end in joined]


def check_shape(runs: Sequence[tuple[int, bytes]], wanted: Sequence[Run], payload_bytes: int) -> None:
    """Raise CorruptError unless an answer has the runs that were asked for, and as many bytes as they have."""
    told = [(first, first + len(crcs) // 4) for first, crcs in runs if len(crcs) % 4 == 0]
    total_bytes = sum(run.stop - run.start for run in wanted)
    if told != [(run.first, run.end) for run in wanted] or len(told) != len(runs) or payload_bytes != total_bytes:
        raise CorruptError(
            "answer does not hold the cells that were asked for",
            expected=f"{total_bytes} bytes",
            got=str(payload_bytes),
        )


def check_sizes(cell_bytes: int, shard_bytes: int) -> None:
    """Raise CorruptError for sizes that no shard has."""
    if not CELL_BYTES_MIN <= cell_bytes <= SHARD_BYTES_MAX or not 0 <= shard_bytes <= SHARD_BYTES_MAX:
        raise CorruptError(
            "answer tells of a shard that cannot be", got=f"cells of {cell_bytes} in {shard_bytes} bytes"
        )


def bad_cell(data: memoryview, first_cell: int, crcs: bytes, cell_bytes: int) -> int | None:
    """Return the first cell of a run that is not what was stored, None when all are."""
    starts = np.arange(0, len(data), cell_bytes)
    found = crc32c_many(data, starts, np.minimum(cell_bytes, len(data) - starts)).astype(">u4").tobytes()
    if found == crcs:
        return None
    pairs = zip(range(len(found) // 4), range(len(crcs) // 4), strict=False)
    return first_cell + next((n for n, _ in pairs if found[4 * n : 4 * n + 4] != crcs[4 * n : 4 * n + 4]), 0)


def cut(data: memoryview, runs: Sequence[Run], ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
    """Return the bytes of each range out of those of the runs that cover them."""
    placed: list[tuple[Run, int]] = []
    at = 0
    for run in runs:
        placed.append((run, at))
        at += run.stop - run.start
    return [_one(data, placed, offset, length) for offset, length in ranges]


def _one(data: memoryview, placed: Sequence[tuple[Run, int]], offset: int, length: int) -> Bytes:
    if not length:
        return b""
    run, at = next((run, at) for run, at in placed if run.start <= offset < run.stop)
    start = at + offset - run.start
    return data[start : start + length]
