"""Frames of a log read, and done to pages, many in one call: the typed face of the replay kernel.

Frames are those of `stoker.pages.frames`. A frame that was read is a row of numbers, see the columns; the kernels drop
the GIL.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.kernels import plain_replaying
from stoker.kernels.checking import Readable
from stoker.kernels.native import native_kernels

START, LSN, PAGE, EPOCH, TIME_NS, KINDS, SOURCE, PAYLOAD_BYTES = range(8)
"""Columns of a row: where the frame begins, and what its header says; KINDS holds type, codec, width, flags, a byte
each, the type lowest."""
ROW_COLUMNS: Final = 8
ADDRESS, SIZE_BYTES, PAGE_EPOCH, PAGE_LSN = range(4)
"""Columns of a page that frames change: where it lies, and what it is; epoch and LSN move on."""
PAGE_COLUMNS: Final = 4
_ROWS_AT_ONCE: Final = 1 << 15
_ROWS_LOOKED_AT: Final = 256
_FRAME_BYTES_MIN: Final = 56
Rows = NDArray[np.uint64]


def scan_frames(buffer: Readable, start: int, *, salt: int, first_lsn: int, covers_lsn: int = 0) -> tuple[Rows, int]:
    """Read valid frames from an offset on until one is not; return a row each, and the offset behind the last.

    first_lsn   of the first frame; each further one has the next
    covers_lsn  up to which LSNs may be left out, 0 for none

    A frame is valid whose length makes sense and whose checksum is right.
    """
    kernels = native_kernels() or plain_replaying
    found: list[Rows] = []
    room = min(_ROWS_AT_ONCE, memoryview(buffer).nbytes // _FRAME_BYTES_MIN + 1)
    while True:
        rows = np.empty((room, ROW_COLUMNS), np.uint64)
        count, start = kernels.scan_frames(buffer, start, salt, first_lsn, covers_lsn, rows)
        found.append(rows[:count])
        if count < room:
            return np.concatenate(found), int(start)
        first_lsn = int(rows[count - 1, LSN]) + 1


def last_frame(buffer: Readable, *, salt: int, first_lsn: int) -> tuple[int, int, int]:
    """Read valid frames from the beginning on; return LSN and offset of the last, and the offset behind it.

    first_lsn  of the first frame; each further one has the next. Returns the one before it, 0 and 0 without any frame
    """
    kernels = native_kernels() or plain_replaying
    rows = np.empty((_ROWS_LOOKED_AT, ROW_COLUMNS), np.uint64)
    lsn, begin, end = first_lsn - 1, 0, 0
    while True:
        count, end = kernels.scan_frames(buffer, end, salt, lsn + 1, 0, rows)
        if count:
            lsn, begin = int(rows[count - 1, LSN]), int(rows[count - 1, START])
        if count < len(rows):
            return lsn, begin, int(end)


def replay_frames(buffer: Readable, rows: Rows, slots: NDArray[np.int64], pages: Rows) -> int:
    """Do what DELTA and IMAGE frames say, in order; return how many were done.

    rows   of frames in `buffer`, as `scan_frames` found them
    slots  int64 of shape (frames,): number of the row of `pages` that each is of
    pages  uint64 of shape (pages, PAGE_COLUMNS), of memory that nobody else changes meanwhile; moved on in place

    Where fewer were done than there are, the next one changed nothing: it is of another type, does not fit its page,
    or its epoch does not follow. Raises UsageError for columns that are none.
    """
    fits = rows.ndim == pages.ndim == 2 and rows.shape[1] == ROW_COLUMNS and pages.shape[1] == PAGE_COLUMNS
    kinds = rows.dtype == pages.dtype == np.uint64 and slots.dtype == np.int64
    if not fits or not kinds or slots.shape != (len(rows),) or not pages.flags.c_contiguous:
        raise UsageError("frames and pages to replay are no columns of numbers", got=f"{rows.shape} {pages.shape}")
    kernels = native_kernels() or plain_replaying
    return int(kernels.replay_frames(buffer, np.ascontiguousarray(rows), np.ascontiguousarray(slots), pages))
