"""What was measured: spans of work as they end, stalls as they are met, and the sums made of both later.

Workers and the consumer only append to queues; the arithmetic is done in bulk, by a worker that has just finished a
batch or by whoever asks for the figures, so that the consumer is not held up between two steps.
"""

import threading
from collections import Counter, deque
from typing import Final

import numpy as np

from stoker.core import clock
from stoker.core.histogram import HIGHEST_NS, LOWEST_NS, Histogram
from stoker.core.ledger import Ledger, total
from stoker.loader.order import Int64s
from stoker.loader.stalls import COLUMNS, QUEUE, STAGES, Stall, split_stall

FIRST_BATCH: Final = "first_batch"
_FOLD_SPANS: Final = 4096
_BULK_SPANS: Final = 16
# A histogram keeps three digits: 2048 steps an octave. What falls into one step is counted together.
_KEPT_BITS: Final = 11

Span = tuple[int, int, int, int]


class CountedHistogram(Histogram):
    """A histogram that takes a duration many times at once."""

    def record_counted(self, duration_ns: int, count: int) -> None:
        """Count one duration `count` times."""
        self._counts.record_value(min(max(duration_ns, LOWEST_NS), HIGHEST_NS), count)


class Tally:
    """The figures of one loader over all its epochs. `workers` threads have a number each, the consumer the last."""

    def __init__(self, workers: int) -> None:
        self.log: deque[Span] = deque()
        self._bulk: deque[tuple[int, int, Int64s, Int64s]] = deque()
        self.active: list[tuple[int, int, int] | None] = [None] * workers
        self.ledgers = [Ledger() for _ in range(workers + 1)]
        self.reading_ns = [0] * workers
        self.requests = [0] * workers
        self.reads = [0] * workers
        self.waited_ns = 0
        self.first_batch = CountedHistogram()
        self._waiting_since_ns = 0
        self._stalls: deque[Stall] = deque()
        self._recent: Int64s = np.empty((0, COLUMNS), np.int64)
        self._counts: list[Counter[int]] = [Counter() for _ in STAGES]
        self._busy_ns = np.zeros(len(STAGES))
        self._stall_ns = np.zeros(len(STAGES) + 1)
        self._folding = threading.RLock()

    @property
    def consumer(self) -> Ledger:
        """Return the ledger that the consumer's side writes to."""
        return self.ledgers[-1]

    def begin(self, worker: int, stage: int, step: int) -> int:
        """Note that a worker starts on a stage; return the time."""
        now_ns = clock.monotonic_ns()
        self.active[worker] = (stage, step, now_ns)
        return now_ns

    def end(self, worker: int, stage: int, step: int, start_ns: int) -> int:
        """Note that the worker is done with it; return the time."""
        now_ns = clock.monotonic_ns()
        self.active[worker] = None
        self.log.append((stage, step, start_ns, now_ns))
        return now_ns

    def done(self, worker: int) -> None:
        """Note that the worker is done with what it began; its spans are told by `end_many`."""
        self.active[worker] = None

    def end_many(self, stage: int, step: int, starts_ns: Int64s, ends_ns: Int64s) -> None:
        """Note many spans of one stage and step; the arrays are kept."""
        self._bulk.append((stage, step, starts_ns, ends_ns))

    def read(self, worker: int, reading_ns: int, requests: int) -> None:
        """Note that a worker read once, how long, and in how many requests."""
        self.reads[worker] += 1
        self.reading_ns[worker] += reading_ns
        self.requests[worker] += requests

    def waiting(self, request_ns: int) -> None:
        """Note that the consumer begins to wait: spans that end from now on matter to its stall."""
        self._waiting_since_ns = request_ns

    def waited(self, step: int, request_ns: int, ready_ns: int) -> None:
        """Note a finished wait."""
        unfinished = tuple(
            (stage, made_for, start_ns, ready_ns)
            for stage, made_for, start_ns in filter(None, list(self.active))
            if start_ns < ready_ns
        )
        self._stalls.append(Stall(step, request_ns, ready_ns, unfinished))
        self.waited_ns += ready_ns - request_ns
        self._waiting_since_ns = 0

    def fold_if_many(self) -> None:
        """Turn what has piled up into sums, when it is worth the while."""
        if len(self.log) + len(self._stalls) + _BULK_SPANS * len(self._bulk) > _FOLD_SPANS:
            self.fold()

    def fold(self) -> None:
        """Turn what has piled up into sums."""
        with self._folding:
            # In this order: whatever overlaps a stall that is taken now has been logged by now.
            horizon_ns = self._waiting_since_ns or clock.monotonic_ns()
            stalls = [self._stalls.popleft() for _ in range(len(self._stalls))]
            taken = [self.log.popleft() for _ in range(len(self.log))]
            many = [self._bulk.popleft() for _ in range(len(self._bulk))]
            spans = np.concatenate((np.array(taken, dtype=np.int64).reshape(-1, COLUMNS), *map(_spans, many)))
            self._fold_durations(spans)
            self._recent = np.concatenate((self._recent, spans))
            self._fold_stalls(stalls)
            self._recent = self._recent[self._recent[:, 3] > horizon_ns]

    def _fold_durations(self, spans: Int64s) -> None:
        durations = spans[:, 3] - spans[:, 2]
        self._busy_ns += np.bincount(spans[:, 0], weights=durations, minlength=len(STAGES))
        for stage, counts in enumerate(self._counts):
            values = durations[spans[:, 0] == stage]
            if len(values):
                kept, times = np.unique(rounded(values), return_counts=True)
                for value, count in zip(kept.tolist(), times.tolist(), strict=True):
                    counts[value] += count

    def _fold_stalls(self, stalls: list[Stall]) -> None:
        if not stalls:
            return
        recent = self._recent[np.argsort(self._recent[:, 3], kind="stable")]
        ends = recent[:, 3]
        for stall in stalls:
            low, high = np.searchsorted(ends, (stall.request_ns, stall.ready_ns), side="right")
            self._stall_ns += split_stall(stall, recent[low:high])

    def stall_seconds(self) -> dict[str, float]:
        """Return the seconds the consumer waited, by stage; stages without any are left out."""
        with self._folding:
            self.fold()
            return _seconds((*STAGES, QUEUE), self._stall_ns)

    def busy_seconds(self) -> dict[str, float]:
        """Return the seconds all workers together spent in each stage; stages without any are left out."""
        with self._folding:
            self.fold()
            return _seconds(STAGES, self._busy_ns)

    def histograms(self) -> dict[str, Histogram]:
        """Return the durations of each stage's operations, and of each epoch's first batch; empty ones are left out."""
        with self._folding:
            self.fold()
            found: dict[str, Histogram] = {FIRST_BATCH: self.first_batch} if self.first_batch.count else {}
            for stage, counts in zip(STAGES, self._counts, strict=True):
                if counts:
                    histogram = CountedHistogram()
                    for value, count in counts.items():
                        histogram.record_counted(value, count)
                    found[stage] = histogram
            return found

    def ledger(self) -> Ledger:
        """Return the sum of all ledgers."""
        return total(self.ledgers)


def _spans(many: tuple[int, int, Int64s, Int64s]) -> Int64s:
    stage, step, starts_ns, ends_ns = many
    spans = np.empty((len(starts_ns), COLUMNS), np.int64)
    spans[:, 0], spans[:, 1], spans[:, 2], spans[:, 3] = stage, step, starts_ns, ends_ns
    return spans


def rounded(durations: Int64s) -> Int64s:
    """Return each duration rounded down to the step of the histogram that it falls into."""
    positive = np.maximum(durations, 1)
    exponents = np.frexp(positive.astype(np.float64))[1]
    dropped = np.maximum(exponents - _KEPT_BITS, 0)
    kept: Int64s = (positive >> dropped) << dropped
    return kept


def _seconds(names: tuple[str, ...], durations_ns: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> dict[str, float]:
    return {name: value / 1e9 for name, value in zip(names, durations_ns.tolist(), strict=True) if value > 0}
