"""Who takes which positions of an epoch, and what is left of it: pure arithmetic on a few intervals.

What is still to be dealt is a list of intervals of positions; end to end they form one sequence. Each step takes one
batch a rank from it, and all ranks are at the same step. Samples that are read one by one are dealt *narrow*: step k
takes the next `ranks x batch` positions, so one interval is left. Where neighbours are read together the sequence is
dealt *wide*: each rank has one contiguous share and works through it, so one interval a rank is left.
Dealing what is left to another number of ranks is the same operation again.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from stoker.loader.order import Int64s

Interval = tuple[int, int]


def joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the same positions as ascending intervals that neither touch nor are empty."""
    merged: list[Interval] = []
    for start, stop in sorted(pair for pair in intervals if pair[0] < pair[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


class Dealing:
    """Intervals dealt to `ranks`, each getting `steps` batches; the tail that does not fill a step is left."""

    def __init__(self, intervals: Sequence[Interval], *, batch_size: int, ranks: int, wide: bool) -> None:
        self.intervals = joined(intervals)
        self.batch_size = batch_size
        self.ranks = ranks
        self.wide = wide
        self._firsts = np.array([start for start, _ in self.intervals], dtype=np.int64)
        lengths = np.array([stop - start for start, stop in self.intervals], dtype=np.int64)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self.length = int(lengths.sum())
        self.steps = self.length // (batch_size * ranks)

    def positions(self, rank: int, first_step: int, last_step: int) -> Int64s:
        """Return the positions rank `rank` takes in steps `first_step` to `last_step` (excluded), in order."""
        assert 0 <= rank < self.ranks
        assert 0 <= first_step <= last_step <= self.steps
        if self.wide:
            share = rank * self.steps * self.batch_size
            return self._at(np.arange(share + first_step * self.batch_size, share + last_step * self.batch_size))
        rounds = np.arange(first_step, last_step) * self.ranks + rank
        return self._at((rounds[:, np.newaxis] * self.batch_size + np.arange(self.batch_size)).reshape(-1))

    def _at(self, places: Int64s) -> Int64s:
        """Return the positions at places of the sequence."""
        if len(self.intervals) == 1:
            return places + self.intervals[0][0]
        which = np.searchsorted(self._ends, places, side="right")
        positions: Int64s = self._firsts[which] + (places - self._starts[which])
        return positions

    def left(self, steps: int | Sequence[int]) -> tuple[Interval, ...]:
        """Return what is left after `steps` steps, of all ranks or of each."""
        each = [steps] * self.ranks if isinstance(steps, int) else list(steps)
        assert len(each) == self.ranks
        assert all(0 <= done <= self.steps for done in each)
        return joined(interval for start, stop in self._places_left(each) for interval in self._cut(start, stop))

    def _places_left(self, each: list[int]) -> Iterator[Interval]:
        batch, share = self.batch_size, self.steps * self.batch_size
        yield self.ranks * share, self.length
        if self.wide:
            yield from ((rank * share + done * batch, (rank + 1) * share) for rank, done in enumerate(each))
            return
        slowest, fastest = min(each), max(each)
        yield fastest * self.ranks * batch, self.ranks * share
        for step in range(slowest, fastest):
            for rank, done in enumerate(each):
                if done <= step:
                    start = (step * self.ranks + rank) * batch
                    yield start, start + batch

    def _cut(self, start: int, stop: int) -> Iterator[Interval]:
        """Yield the positions of the places from `start` to `stop` as intervals."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        for number in range(first, len(self.intervals)):
            base = int(self._starts[number])
            if base >= stop:
                return
            low, high = self.intervals[number]
            yield low + max(start - base, 0), min(low + stop - base, high)
