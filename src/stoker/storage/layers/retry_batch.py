"""Repeats, of a batch of ranges, those that failed for a passing reason."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stoker.core import clock
from stoker.core.errors import StokerError, TransientError, UnavailableError, UsageError
from stoker.kernels.files import (
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_STARTED_NS,
    FILE_STATUS,
    RANGE_FILE,
    STATUS_GOOD,
)
from stoker.storage.batch import BatchRead, BatchReader
from stoker.storage.layers.batch_layer import BatchLayer


class Repeats(Protocol):
    """Decides whether and when something is tried again."""

    def wait_seconds(self, key: str, failures: int, started_ns: int) -> float | None:
        """Return how long to wait before the next try, None when there is to be none."""

    def count_repeats(self, number: int) -> None:
        """Note that so many calls are made again."""


class RetryBatchReader(BatchLayer):
    """Reads what failed again, and leaves alone what came. Times run from the first try on."""

    def __init__(self, inner: BatchReader, repeats: Repeats) -> None:
        super().__init__(inner)
        self._repeats = repeats
        self._latest: BatchRead | None = None
        self._errors: dict[int, StokerError] = {}

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch; statuses tell what came of each at last."""
        started_ns = clock.monotonic_ns()
        self._latest, self._errors = batch, {}
        self._inner.read(batch)
        self._learn(batch, np.arange(len(batch.ranges)))
        failures = 1
        while passing := [index for index, error in self._errors.items() if isinstance(error, TransientError)]:
            key = batch.keys[int(batch.ranges[passing[0], RANGE_FILE])]
            wait_seconds = self._repeats.wait_seconds(key, failures, started_ns)
            if wait_seconds is None:
                break
            self._repeats.count_repeats(len(passing))
            clock.sleep(wait_seconds)
            self._again(batch, passing)
            failures += 1
        self._errors = {index: spent(error, failures) for index, error in self._errors.items()}

    def _again(self, batch: BatchRead, rows: Sequence[int]) -> None:
        """Read these ranges once more and put what came of them in their places."""
        chosen = np.array(sorted(rows))
        ranges = batch.ranges[chosen]
        numbers, ranges[:, RANGE_FILE] = np.unique(ranges[:, RANGE_FILE], return_inverse=True)
        part = BatchRead([batch.keys[number] for number in numbers.tolist()], ranges)
        self._inner.read(part)
        for row in rows:
            del self._errors[row]
        self._learn(part, chosen)
        part.ranges_done[:, DONE_STARTED_NS] = batch.ranges_done[chosen, DONE_STARTED_NS]
        batch.ranges_done[chosen] = part.ranges_done
        part.objects_done[:, FILE_STARTED_NS] = batch.objects_done[numbers, FILE_STARTED_NS]
        better = (part.objects_done[:, FILE_STATUS] == STATUS_GOOD) | (
            batch.objects_done[numbers, FILE_STATUS] != STATUS_GOOD
        )
        batch.objects_done[numbers[better]] = part.objects_done[better]

    def _learn(self, part: BatchRead, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
        for index in np.flatnonzero(part.ranges_done[:, DONE_STATUS]).tolist():
            self._errors[int(rows[index])] = self._inner.error(part, index)

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return what `open_read` would have raised for a range of the batch that was read last."""
        if batch is not self._latest or index not in self._errors:
            raise UsageError("range did not fail in the batch that was read last", where=str(index))
        return self._errors[index]


def spent(error: StokerError, failures: int) -> StokerError:
    """Return the error for a call whose tries are spent; one that repeating cannot heal as it is."""
    if not isinstance(error, TransientError):
        return error
    return UnavailableError(
        f"{error.what}, {failures} times" if failures > 1 else error.what,
        where=error.where,
        expected=error.expected,
        got=error.got,
        remedy="check that the service is up and reachable, or allow more with ?retry_attempts= and ?retry_deadline=",
    )
