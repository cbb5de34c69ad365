"""What waits to be repaired, the most exposed first, and how fast it may go. Values of the times they are given."""

import heapq
import itertools
from typing import Final

import msgspec

from stoker.fs.meta.slices import Slice

QUEUE_MAX: Final = 200_000
"""So many slices wait at most; a later pass over the inventory finds those that found no room."""
NOTED_SPARE: Final = 0
"""Who reports a slice does not know how many shards are left: it goes before those known to be able to lose one."""
_RETRY_SECONDS: Final = 15.0
_RETRY_SECONDS_MAX: Final = 600.0
_FAILURES_MAX: Final = 8


class Waiting(msgspec.Struct):
    """A slice that waits: how many shards it could lose, since when, what its repair costs, how often it failed."""

    slice: Slice
    spare: int
    since: float
    cost_bytes: int
    failures: int = 0
    not_before: float = 0.0


class Queue:
    """Slices that wait, ordered by how many shards they could lose further, then by how long they have waited."""

    def __init__(self) -> None:
        self._known: dict[Slice, Waiting] = {}
        self._heap: list[tuple[int, float, int, Slice]] = []
        self._turns = itertools.count()
        self.bytes = 0
        self.refused = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._known)

    def add(self, item: Waiting) -> bool:
        """Have a slice wait; one that does already is moved up if it is worse than was known. False: no room."""
        known = self._known.get(item.slice)
        if known is not None:
            if item.spare < known.spare:
                known.spare = item.spare
                self._push(known)
            return True
        if len(self._known) >= QUEUE_MAX:
            self.refused += 1
            return False
        self._known[item.slice] = item
        self.bytes += item.cost_bytes
        self._push(item)
        return True

    def _push(self, item: Waiting) -> None:
        heapq.heappush(self._heap, (item.spare, item.since, next(self._turns), item.slice))

    def take(self, now: float) -> Waiting | None:
        """Return the next one, which waits no more; None when nothing may be tried now."""
        later = []
        found = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            item = self._known.get(entry[3])
            if item is None or (item.spare, item.since) != entry[:2]:
                continue  # taken meanwhile, or moved up
            if item.not_before > now:
                later.append(entry)
            else:
                found = item
                del self._known[entry[3]]
                self.bytes -= item.cost_bytes
        for entry in later:
            heapq.heappush(self._heap, entry)
        return found

    def is_due(self, now: float) -> bool:
        """Tell whether one waits that may be tried now."""
        return any(item.not_before <= now for item in self._known.values())

    def hurry(self) -> None:
        """Let all be tried now: what kept them from being repaired may be over."""
        for item in self._known.values():
            item.not_before = 0.0

    def failed(self, item: Waiting, now: float) -> None:
        """Have one wait that could not be repaired: twice as long with each time, then leave it to the next pass."""
        pause = min(_RETRY_SECONDS * 2.0 ** min(item.failures, 16), _RETRY_SECONDS_MAX)
        item.failures += 1
        if item.failures > _FAILURES_MAX:
            return
        item.not_before = now + pause
        self.add(item)

    def oldest_seconds(self, now: float) -> float:
        """Return for how long the one that has waited longest does; 0 when none waits."""
        return max((now - item.since for item in self._known.values()), default=0.0)

    def by_spare(self) -> dict[int, int]:
        """Return how many wait by how many shards they could lose further."""
        counts: dict[int, int] = {}
        for item in self._known.values():
            counts[item.spare] = counts.get(item.spare, 0) + 1
        return dict(sorted(counts.items()))

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._heap.clear()
        self.bytes = 0


class Bucket:
    """A token bucket: so many bytes a second, saved up for a second at most. 0 is without limit.

    What is larger than the bucket passes when the bucket is full, and is paid for afterwards.
    """

    def __init__(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._tokens = float(bytes_per_second)
        self._then: float | None = None

    def take(self, cost_bytes: int, now: float) -> bool:
        """Take tokens for so many bytes; tell whether that may be spent now."""
        if not self.bytes_per_second:
            return True
        if self._then is not None:
            gained = max(now - self._then, 0.0) * self.bytes_per_second
            self._tokens = min(self._tokens + gained, float(self.bytes_per_second))
        self._then = now
        if self._tokens < min(cost_bytes, self.bytes_per_second):
            return False
        self._tokens -= cost_bytes
        return True


class Pace:
    """How fast repair goes: bytes a second, over about the last minute."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._rate = 0.0
        self._then: float | None = None

    def done(self, count: int, now: float) -> None:
        """Note what was done."""
        if self._then is None:
            self._then = now
        self.rate(now)
        self._rate += count / self._seconds

    def rate(self, now: float) -> float:
        """Return bytes a second."""
        if self._then is None:
            return 0.0
        passed = max(now - self._then, 0.0)
        self._rate *= max(1.0 - passed / self._seconds, 0.0)
        self._then = now
        return self._rate
