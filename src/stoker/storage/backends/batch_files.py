"""The fast lane of local stores: a read engine of `stoker.kernels` below a root folder."""

import errno
import os

from stoker.core.errors import NotFoundError, StokerError, StoreError
from stoker.kernels.files import (
    DONE_READ_BYTES,
    DONE_STATUS,
    FILE_STATUS,
    RANGE_FILE,
    RANGE_WANTED_BYTES,
    STATUS_NOT_REGULAR,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
    ReadEngine,
)
from stoker.storage.backends.beneath import Root
from stoker.storage.backends.posix_errors import store_error
from stoker.storage.base import short_read
from stoker.storage.batch import BatchRead


class FileBatchReader:
    """Reads batches of files below `root`; see `stoker.storage.batch.BatchReader`.

    `flags` are added to those of open(2); `residency`: the page cache is asked before each range.
    """

    def __init__(
        self, engine: ReadEngine, root: Root, location: str, *, flags: int, block_bytes: int, residency: bool
    ) -> None:
        self._engine = engine
        self._root = root
        self._location = location
        self._flags = flags
        self._residency = residency
        self.block_bytes = block_bytes
        self.queues = engine.kind != "plain"

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch."""
        self._engine.read_files(
            self._root.folder,
            batch.keys,
            self._flags,
            batch.ranges,
            residency=self._residency,
            files_done=batch.objects_done,
            ranges_done=batch.ranges_done,
        )

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return the error that the status of range `index` stands for."""
        number = int(batch.ranges[index, RANGE_FILE])
        where = f"{self._location}/{batch.keys[number]}"
        status = int(batch.ranges_done[index, DONE_STATUS])
        if status == STATUS_NOT_TRIED:
            return self._opening_error(int(batch.objects_done[number, FILE_STATUS]), where)
        if status == STATUS_SHORT:
            wanted_bytes = int(batch.ranges[index, RANGE_WANTED_BYTES])
            return short_read(
                where, wanted_bytes=wanted_bytes, got_bytes=int(batch.ranges_done[index, DONE_READ_BYTES])
            )
        return store_error(OSError(status, os.strerror(status)), where, reading=True)

    def _opening_error(self, status: int, where: str) -> StokerError:
        if status == STATUS_NOT_REGULAR:
            return NotFoundError("no such object", where=where, expected="a regular file", got="something else")
        if status == errno.EINVAL and self._flags & os.O_DIRECT:
            return StoreError("O_DIRECT is refused for this file", where=where)
        return store_error(OSError(status, os.strerror(status)), where, reading=True)

    @property
    def chosen(self) -> dict[str, str | int]:
        """Return the engine and its settings."""
        engine = self._engine
        return {"engine": engine.kind, "queue_depth": engine.queue_depth, "request_bytes": engine.request_bytes}

    def tune(self, *, queue_depth: int, request_bytes: int) -> None:
        """Use other settings from the next batch on."""
        self._engine.queue_depth = queue_depth
        self._engine.request_bytes = request_bytes

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()
