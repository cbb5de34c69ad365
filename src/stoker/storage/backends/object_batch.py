"""Many ranges of many objects in one call: parallel ranged GETs, straight into the caller's memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from stoker.core import clock
from stoker.core.errors import StokerError, UsageError
from stoker.kernels.files import FILE_COLUMNS, RANGE_ADDRESS, RANGE_FILE, RANGE_WANTED_BYTES
from stoker.kernels.plain_files import check_numbers, check_shapes
from stoker.storage.api import ObjectInfo
from stoker.storage.backends.object_crew import Crew
from stoker.storage.backends.object_outcome import tell
from stoker.storage.backends.object_plan import Part, deliver, plan
from stoker.storage.backends.object_wire import Facts, Wire
from stoker.storage.batch import BatchRead


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a reader works. Of the ranges at most `coalesce_bytes` apart, neighbours share a request."""

    queue_depth: int
    request_bytes: int
    coalesce_bytes: int
    pinned: frozenset[str] = frozenset()


class ObjectBatchReader:
    """Reads batches of one store, for one thread at a time; at most `queue_depth` requests are under way.

    In flight are at most `queue_depth` pieces of bodies, each 256 KiB and what the client holds of it: nothing waits
    to be put together. A range of an object is never mixed from two versions of it.
    """

    block_bytes = 1
    queues = True

    def __init__(
        self, wire: Wire, path: Callable[[str], str], stat: Callable[[str], ObjectInfo], tuning: Tuning
    ) -> None:
        self._wire = wire
        self._path = path
        self._stat = stat
        self._tuning = tuning
        self._crew = Crew()
        self._latest: BatchRead | None = None
        self._errors: dict[int, StokerError] = {}

    @property
    def chosen(self) -> dict[str, str | int]:
        """Return what it works with."""
        return {
            "engine": "ranged gets",
            "queue_depth": self._tuning.queue_depth,
            "request_bytes": self._tuning.request_bytes,
            "coalesce_bytes": self._tuning.coalesce_bytes,
            "endpoints": self._wire.ring.size,
        }

    def tune(self, *, queue_depth: int, request_bytes: int) -> None:
        """Use other settings from the next batch on; those that the URL tells stay."""
        old = self._tuning
        self._tuning = Tuning(
            old.queue_depth if "queue_depth" in old.pinned else max(1, queue_depth),
            old.request_bytes if "request_bytes" in old.pinned else max(1, request_bytes),
            old.coalesce_bytes,
            old.pinned,
        )

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch; statuses tell what came of each.

        Exactly the wanted bytes are read, also where there is room for more. Raises UsageError for columns that
        cannot be, StoreError in a fork of a process that used object stores.
        """
        _check(batch)
        tuning = self._tuning
        parts = plan(batch.ranges, request_bytes=tuning.request_bytes, coalesce_bytes=tuning.coalesce_bytes)
        self._latest, self._errors = batch, {}
        self._crew.run(partial(self._fetch, batch.keys), parts, at_once=tuning.queue_depth)
        self._errors = tell(batch, parts, self._wire.where)

    def _fetch(self, keys: Sequence[str], part: Part) -> None:
        """Make the request of one part; it tells itself what came of it."""
        key = keys[part.number]
        part.started_ns = clock.monotonic_ns()
        try:
            path = self._path(key)
            if not part.pieces:
                info = self._stat(key)
                part.facts = Facts(range(0), info.size_bytes, info.version)
                part.opened_ns = clock.monotonic_ns()
            else:
                body = self._wire.get(key, path, part.offset_bytes, part.end_bytes - part.offset_bytes)
                part.facts = body.facts
                part.opened_ns = clock.monotonic_ns()
                deliver(body, part.pieces)
                if len(part.pieces) > 1 and body.facts.span.stop == part.end_bytes:
                    self._wire.count_gaps(part.gap_bytes)
        except StokerError as error:
            part.error = error
        part.ended_ns = clock.monotonic_ns()

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return what `open_read` would have raised for a range of the batch that was read last."""
        if batch is not self._latest or index not in self._errors:
            raise UsageError("range did not fail in the batch that was read last", where=str(index))
        return self._errors[index]

    def close(self) -> None:
        """End the threads; closing twice is harmless."""
        self._crew.close()


def _check(batch: BatchRead) -> None:
    check_shapes(batch.ranges, batch.ranges_done)
    check_numbers(batch.ranges, len(batch.keys), ordered=True)
    if batch.objects_done.shape != (len(batch.keys), FILE_COLUMNS):
        raise UsageError("columns of the objects have a wrong shape", got=str(batch.objects_done.shape))
    if (np.diff(batch.ranges[:, RANGE_FILE]) < 0).any():
        raise UsageError("ranges do not stand in the order of their objects")
    if ((batch.ranges[:, RANGE_ADDRESS] == 0) & (batch.ranges[:, RANGE_WANTED_BYTES] > 0)).any():
        raise UsageError("a range has no address")
