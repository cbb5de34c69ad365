"""Many ranges of many objects in one call: the fast lane of stores that offer it.

A caller that knows sizes beforehand (a manifest tells them) names objects and ranges as columns of numbers, and gets
columns back: no Python object, call or exception is made for each range. Whoever lacks the fast lane, or has a layer
that must see each read, is read through `open_read` instead.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import StokerError
from stoker.storage.api import Buffer, ObjectInfo
from stoker.storage.buffers import PAGE_BYTES

Int64s = NDArray[np.int64]


class BatchRead:
    """A batch of ranges, and after reading what came of them. One per thread, reused as the caller likes.

    keys        the objects, each once; ranges of an object stand together, in the order of `keys`
    ranges      shape (n, 5), int64: columns of `stoker.kernels.files` (object number, offset, wanted, room, address)
    objects_done    shape (objects, 4): status, size, started, opened
    ranges_done     shape (n, 5): status, read bytes, cached bytes, started, ended
    """

    __slots__ = ("keys", "objects_done", "ranges", "ranges_done")

    def __init__(self, keys: Sequence[str], ranges: Int64s) -> None:
        self.keys = keys
        self.ranges = ranges
        self.objects_done: Int64s = np.zeros((len(keys), 4), np.int64)
        self.ranges_done: Int64s = np.zeros((len(ranges), 5), np.int64)


class BatchReader(Protocol):
    """Reads batches for one thread at a time.

    block_bytes     offsets, addresses and rooms must be multiples of it; 1: anything goes
    queues          it keeps several requests under way: `tune` has an effect
    chosen          what it works with, such as `io_uring`, depth and request size, for results and people
    """

    block_bytes: int
    queues: bool

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch; statuses tell what came of each. Raises only when the reader itself fails."""

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return the error that the status of range `index` stands for, as `open_read` would have raised it."""

    @property
    def chosen(self) -> dict[str, str | int]: ...

    def tune(self, *, queue_depth: int, request_bytes: int) -> None:
        """Use other settings from the next batch on, within what the reader can do; pinned ones stay."""

    def close(self) -> None:
        """Release what it holds; closing twice is harmless."""


@runtime_checkable
class SupportsBatchRead(Protocol):
    """Reads many ranges in one call."""

    def batch_reader(self, *, residency: bool = True) -> BatchReader | None:
        """Return a reader for one thread, None when this store cannot offer it here.

        With `residency` it tells, for each range, how much lay in the page cache.
        """


def whole_block_reader(store: object) -> BatchReader | None:
    """Return a batch reader of `store` for this thread whose blocks fit into a page, None where there is none."""
    reader = store.batch_reader() if isinstance(store, SupportsBatchRead) else None
    if reader is not None and PAGE_BYTES % reader.block_bytes:
        reader.close()
        return None
    return reader


class BatchLane(NamedTuple):
    """What a store offers here: whether it `reads` batches, and whether its readers keep queues."""

    reads: bool
    queues: bool


def batch_lane(store: object) -> BatchLane:
    """Return what `whole_block_reader` would give."""
    reader = whole_block_reader(store)
    if reader is None:
        return BatchLane(reads=False, queues=False)
    reader.close()
    return BatchLane(reads=True, queues=reader.queues)


@runtime_checkable
class SupportsBatchWrite(Protocol):
    """Puts many small objects in one call."""

    def put_many(
        self, items: Sequence[tuple[str, Buffer]], *, if_absent: bool = False
    ) -> list[ObjectInfo | StokerError]:
        """Store each object whole or not at all, as `put` does; return what came of each, in its place.

        When this returns, what was put is as durable as after `put`. Objects of one key are put in their order. One
        bad object stops no other. Meant for objects of up to a few MiB; the buffers are ours until this returns.
        """
