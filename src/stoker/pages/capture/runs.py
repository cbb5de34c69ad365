"""The bytes that differ between memory and its shadow, as runs: exact, also where whole pages count as written."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ranges = NDArray[np.int64]
_CHUNK_BYTES: Final = 256 * 1024
"""What is compared at a time: both sides and their difference stay in the cache."""
_SPARSE_WORDS: Final = 16
"""Below one changed word in so many, the words are looked at one by one."""


class Changes(msgspec.Struct, frozen=True):
    """Runs of changed bytes: `ranges` (offset, length), ascending and apart, shape (n, 2); `data`: their bytes."""

    ranges: Ranges
    data: Bytes

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield each run as (offset, bytes)."""
        at = 0
        for offset, length in self.ranges.tolist():
            yield offset, self.data[at : at + length].tobytes()
            at += length

    def apply(self, target: Bytes) -> None:
        """Write the runs into `target`, uint8 of the size that was compared."""
        at = 0
        for offset, length in self.ranges.tolist():
            target[offset : offset + length] = self.data[at : at + length]
            at += length


def collect_changes(
    live: Bytes, shadow: Bytes, candidates: Ranges, *, gap_bytes: int = 0, update: bool = True
) -> Changes:
    """Return what differs between `live` and `shadow` (uint8, one size) inside the candidate (offset, length) ranges.

    Runs with at most `gap_bytes` equal bytes between them become one, inside a candidate and within 256 KiB. `update`
    makes the shadow equal to what was read. `live` is read once: a writer beside us is seen now or next time, never
    lost.
    """
    ranges: list[Ranges] = []
    data: list[Bytes] = []
    for pieces in _batches(candidates, gap_bytes + 1):
        fresh, old = _packed(live, pieces), _packed(shadow, pieces)
        found = changed_runs(old, fresh, gap_bytes)
        if not len(found):
            continue
        data.append(_gathered(fresh, found))
        owners = np.searchsorted(pieces[:, 2], found[:, 0], side="right") - 1
        shifts = pieces[owners, 0] - pieces[owners, 2]
        ranges.append(np.stack((found[:, 0] + shifts, found[:, 1]), axis=1))
        if update:
            for offset, length, at in pieces[np.unique(owners)].tolist():
                shadow[offset : offset + length] = fresh[at : at + length]
    if not ranges:
        return Changes(np.zeros((0, 2), np.int64), np.zeros(0, np.uint8))
    return Changes(_touching_joined(np.concatenate(ranges)), np.concatenate(data))


def _batches(candidates: Ranges, apart_bytes: int) -> Iterator[Ranges]:
    """Yield pieces of the candidates as (offset, length, place), shape (n, 3), which fill a chunk together.

    Many small candidates are compared at once. Their places lie `apart_bytes` apart, so that no run joins two.
    """
    batch: list[tuple[int, int, int]] = []
    filled = 0
    for offset, length in candidates.tolist():
        for start in range(offset, offset + length, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES, offset + length - start)
            if batch and filled + size > _CHUNK_BYTES:
                yield np.array(batch, np.int64)
                batch, filled = [], 0
            batch.append((start, size, filled))
            filled += size + apart_bytes
    if batch:
        yield np.array(batch, np.int64)


def _packed(source: Bytes, pieces: Ranges) -> Bytes:
    """Return a copy of the pieces at their places, zeros between them."""
    offset, length, at = pieces[-1].tolist()
    if len(pieces) == 1:
        return source[offset : offset + length].copy()
    packed = np.zeros(at + length, np.uint8)
    for offset, length, at in pieces.tolist():
        packed[at : at + length] = source[offset : offset + length]
    return packed


def changed_runs(old: Bytes, new: Bytes, gap_bytes: int = 0) -> Ranges:
    """Return the (offset, length) runs where two buffers of one size differ, shape (n, 2)."""
    whole = len(old) // 8 * 8
    words = np.flatnonzero(old[:whole].view(np.uint64) != new[:whole].view(np.uint64))
    tail = whole + np.flatnonzero(old[whole:] != new[whole:])
    if len(words) * _SPARSE_WORDS > len(old) // 8:
        return _runs_of_mask(old != new, gap_bytes)
    places = (words[:, None] * 8 + np.arange(8)).reshape(-1)
    changed = np.concatenate((places[old[places] != new[places]], tail))
    if not len(changed):
        return np.zeros((0, 2), np.int64)
    breaks = np.flatnonzero(np.diff(changed) > 1 + gap_bytes)
    starts = changed[np.concatenate(([0], breaks + 1))]
    ends = changed[np.concatenate((breaks, [len(changed) - 1]))] + 1
    return np.stack((starts, ends - starts), axis=1)


def _runs_of_mask(mask: NDArray[np.bool_], gap_bytes: int) -> Ranges:
    edges = np.flatnonzero(np.diff(mask.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    starts, ends = edges[::2], edges[1::2]
    apart = np.flatnonzero(starts[1:] - ends[:-1] > gap_bytes)
    starts = starts[np.concatenate(([0], apart + 1))]
    ends = ends[np.concatenate((apart, [len(ends) - 1]))]
    return np.stack((starts, ends - starts), axis=1)


def _gathered(fresh: Bytes, runs: Ranges) -> Bytes:
    """Return the bytes of the runs, one behind the other."""
    if len(runs) == 1:
        start, length = runs[0].tolist()
        return fresh[start : start + length]
    lengths = runs[:, 1]
    before = np.cumsum(lengths) - lengths
    return fresh[np.repeat(runs[:, 0] - before, lengths) + np.arange(int(lengths.sum()))]


def _touching_joined(runs: Ranges) -> Ranges:
    """Return runs that touch, as they do where chunks meet, as one."""
    ends = runs[:, 0] + runs[:, 1]
    apart = np.flatnonzero(runs[1:, 0] > ends[:-1])
    starts = runs[np.concatenate(([0], apart + 1)), 0]
    return np.stack((starts, ends[np.concatenate((apart, [len(runs) - 1]))] - starts), axis=1)
