"""The barrier of local ranks: kernel event counters (eventfd(2)), no shared memory.

Each rank adds one to the counter of arrivals, and a vote if it wants to stop; rank 0 reads until all are there and
adds to each rank's own counter of releases. Reading sleeps in the kernel, so a waiting rank takes no CPU; adding up in
the kernel needs no lock; the counters vanish with the last process that holds them, whatever killed it. Whoever
launched the ranks holds the counters too and calls the run off by adding to them.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from stoker.bench.workloads.comm import RunAborted

VOTE: Final = 1 << 20
"""Arrivals count below it, votes from it on: a million ranks are more than a host holds."""
ABORTED: Final = 1 << 40
_GO: Final = 1
_STOP: Final = 2


class EventComm:
    """One local rank's side. `releases` maps a rank to its counter: rank 0 needs all, the others their own."""

    def __init__(self, rank: int, size: int, *, arrivals: int, releases: Mapping[int, int]) -> None:
        assert 0 <= rank < size < VOTE
        self.rank = self.host_rank = rank
        self.size = self.host_size = size
        self._arrivals = arrivals
        self._own_release = releases[rank]
        self._others = [releases[other] for other in range(1, size)] if rank == 0 else []
        self._aborted = False

    def barrier(self, stop: bool = False) -> bool:
        """Wait for all ranks; return whether any asked to stop. Raises RunAborted when the run is called off."""
        if self.rank == 0:
            return self._gather_and_release(stop)
        os.eventfd_write(self._arrivals, 1 + VOTE * stop)
        return self._read(self._own_release) == _STOP

    def _gather_and_release(self, stop: bool) -> bool:
        arrived = VOTE * stop
        while arrived % VOTE < self.size - 1:
            arrived += self._read(self._arrivals)
        stops = arrived >= VOTE
        for release in self._others:
            os.eventfd_write(release, _STOP if stops else _GO)
        return stops

    def _read(self, counter: int) -> int:
        value = ABORTED if self._aborted else _read_through_signals(counter)
        if value >= ABORTED:
            self._aborted = True
            raise RunAborted("the run was called off")
        return value


def _read_through_signals(counter: int) -> int:
    """Return a counter's value, waiting for it. Python does not resume this call by itself after a signal."""
    while True:
        try:
            return os.eventfd_read(counter)
        except InterruptedError:
            continue


class EventCounters:
    """The counters of a run, held by whoever launches its ranks."""

    def __init__(self, size: int) -> None:
        self.arrivals = os.eventfd(0, os.EFD_CLOEXEC)
        self.releases = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(size)]

    def of_rank(self, rank: int) -> dict[int, int]:
        """Return the releases that a rank needs."""
        return dict(enumerate(self.releases)) if rank == 0 else {rank: self.releases[rank]}

    def descriptors(self, rank: int) -> Sequence[int]:
        """Return the descriptors that a rank must inherit."""
        return [self.arrivals, *self.of_rank(rank).values()]

    def abort(self) -> None:
        """Call the run off: every rank that waits, or will, raises RunAborted."""
        for counter in (self.arrivals, *self.releases):
            os.eventfd_write(counter, ABORTED)

    def close(self) -> None:
        """Close the counters; closing twice is harmless."""
        counters, self.releases = [self.arrivals, *self.releases], []
        for counter in counters:
            if counter >= 0:
                os.close(counter)
        self.arrivals = -1
