"""The fast lane of stores without a device: sizes are looked up, and bytes copied where there are any."""

import ctypes
from collections.abc import Callable

import numpy as np

from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.kernels.files import (
    DONE_ENDED_NS,
    DONE_READ_BYTES,
    DONE_STARTED_NS,
    DONE_STATUS,
    FILE_OPENED_NS,
    FILE_SIZE_BYTES,
    FILE_STARTED_NS,
    FILE_STATUS,
    RANGE_ADDRESS,
    RANGE_FILE,
    RANGE_OFFSET_BYTES,
    RANGE_WANTED_BYTES,
    STATUS_NOT_TRIED,
    STATUS_SHORT,
)
from stoker.storage.base import short_read
from stoker.storage.batch import BatchRead

Found = tuple[int, memoryview | None]
"""An object's size, and its bytes where it has any."""


class MemoryBatchReader:
    """Reads what `find` gives for each key; see `stoker.storage.batch.BatchReader`."""

    block_bytes = 1
    queues = False

    def __init__(self, location: str, find: Callable[[str], Found]) -> None:
        self._location = location
        self._find = find
        self._errors: dict[int, StokerError] = {}

    def read(self, batch: BatchRead) -> None:
        """Read every range of the batch."""
        objects, done, ranges = batch.objects_done, batch.ranges_done, batch.ranges
        objects[:] = done[:] = 0
        self._errors.clear()
        objects[:, FILE_STARTED_NS] = clock.monotonic_ns()
        contents = [self._look_up(number, key) for number, key in enumerate(batch.keys)]
        sizes_bytes = np.array([size_bytes for size_bytes, _ in contents], np.int64)
        objects[:, FILE_SIZE_BYTES] = sizes_bytes
        objects[:, FILE_OPENED_NS] = done[:, DONE_STARTED_NS] = clock.monotonic_ns()
        wanted_bytes = ranges[:, RANGE_WANTED_BYTES]
        ends = ranges[:, RANGE_OFFSET_BYTES] + wanted_bytes
        short = ends > sizes_bytes[ranges[:, RANGE_FILE]]
        done[:, DONE_READ_BYTES] = wanted_bytes
        if short.any():
            objects[:, FILE_STATUS] = sizes_bytes < 0
            done[short, DONE_READ_BYTES] = 0
            done[short, DONE_STATUS] = STATUS_SHORT
            done[sizes_bytes[ranges[:, RANGE_FILE]] < 0, DONE_STATUS] = STATUS_NOT_TRIED
        if any(content is not None for _, content in contents):
            self._copy(batch, contents)
        done[:, DONE_ENDED_NS] = clock.monotonic_ns()

    def _look_up(self, number: int, key: str) -> Found:
        try:
            return self._find(key)
        except StokerError as error:
            self._errors[number] = error
            return -1, None

    def _copy(self, batch: BatchRead, contents: list[Found]) -> None:
        for wanted, status in zip(batch.ranges.tolist(), batch.ranges_done[:, DONE_STATUS].tolist(), strict=True):
            content = contents[wanted[RANGE_FILE]][1]
            length = wanted[RANGE_WANTED_BYTES]
            if status == 0 and content is not None and length:
                into = (ctypes.c_char * length).from_address(wanted[RANGE_ADDRESS])
                source = np.frombuffer(content, np.uint8, length, wanted[RANGE_OFFSET_BYTES])
                np.copyto(np.frombuffer(into, np.uint8), source)  # lets other threads run meanwhile

    def error(self, batch: BatchRead, index: int) -> StokerError:
        """Return the error that the status of range `index` stands for."""
        number = int(batch.ranges[index, RANGE_FILE])
        if number in self._errors:
            return self._errors[number]
        return short_read(
            f"{self._location}/{batch.keys[number]}",
            wanted_bytes=int(batch.ranges[index, RANGE_WANTED_BYTES]),
            got_bytes=max(
                0, int(batch.objects_done[number, FILE_SIZE_BYTES] - batch.ranges[index, RANGE_OFFSET_BYTES])
            ),
        )

    @property
    def chosen(self) -> dict[str, str | int]:
        """Return what it works with."""
        return {"engine": "memory"}

    def tune(self, *, queue_depth: int, request_bytes: int) -> None:
        """Do nothing: there is no queue."""

    def close(self) -> None:
        """Nothing to release."""
