"""Many reads of files in one call: the words that the native engines and their plain twin share.

A call names files below an open folder and ranges of them, as columns of numbers, and fills columns with what came of
each. Nothing is raised for a bad file: its status says what happened, and the others are read all the same.

Past the page cache (O_DIRECT) offsets, addresses and rooms are multiples of the device's block; a file's last block
then comes short of its room, which is no error as long as the wanted bytes are there.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stoker.core.units import GiB, MiB

Int64s = NDArray[np.int64]

REQUEST_BYTES: Final = MiB
QUEUE_DEPTH: Final = 32
BLOCK_BYTES: Final = 4096
REQUEST_BYTES_MAX: Final = GiB
QUEUE_DEPTH_MAX: Final = 4096

# Columns of the ranges asked for. `wanted`: fewer is an error; `room`: read up to that many; 0 wanted reads nothing,
# whatever the room.
RANGE_FILE: Final = 0
RANGE_OFFSET_BYTES: Final = 1
RANGE_WANTED_BYTES: Final = 2
RANGE_ROOM_BYTES: Final = 3
RANGE_ADDRESS: Final = 4
RANGE_COLUMNS: Final = 5

# Columns of what came of a file. Times are CLOCK_MONOTONIC; size -1 where it was not learnt.
FILE_STATUS: Final = 0
FILE_SIZE_BYTES: Final = 1
FILE_STARTED_NS: Final = 2
FILE_OPENED_NS: Final = 3
FILE_COLUMNS: Final = 4

# Columns of what came of a range. `cached`: bytes in the page cache just before, -1 where not asked or not told.
DONE_STATUS: Final = 0
DONE_READ_BYTES: Final = 1
DONE_CACHED_BYTES: Final = 2
DONE_STARTED_NS: Final = 3
DONE_ENDED_NS: Final = 4
DONE_COLUMNS: Final = 5

# Statuses: 0 is good, a positive one is an errno, and:
STATUS_GOOD: Final = 0
STATUS_SHORT: Final = -1
"""The file ended before the wanted bytes did."""
STATUS_NOT_REGULAR: Final = -2
"""A folder, symbolic link, device, pipe or socket."""
STATUS_NOT_TRIED: Final = -3
"""The range's file could not be opened."""


class ReadEngine(Protocol):
    """Reads for one thread at a time; closing it twice is harmless.

    kind        `io_uring`, `threads` (both native) or `plain`
    queue_depth     requests under way at once, at least 1; may be changed between calls
    request_bytes   longer ranges are split into requests of this size, a multiple of 4096; may be changed too
    """

    kind: str
    queue_depth: int
    request_bytes: int

    def read_files(
        self,
        folder: int,
        keys: Sequence[str],
        flags: int,
        ranges: Int64s,
        *,
        residency: bool,
        files_done: Int64s,
        ranges_done: Int64s,
    ) -> None:
        """Open `keys` below the open `folder`, read `ranges`, close them; each file is opened once.

        `flags` are those of open(2) for reading, such as O_DIRECT; those that write are refused. Symbolic links are
        not followed and nothing outside the folder is opened (openat2 with RESOLVE_BENEATH). Ranges of one file stand
        together, the files in the order of `keys`. `ranges` has shape (n, RANGE_COLUMNS), C-ordered; `files_done`
        (files, FILE_COLUMNS) and `ranges_done` (n, DONE_COLUMNS) are filled. The memory behind the addresses is the
        caller's to keep alive.

        With `residency` the page cache is asked (cachestat) before each range is read. Through the page cache nothing
        is read ahead behind the ranges, but for a page a file. Waits until all is done, with the GIL dropped. Raises
        UsageError for columns of the wrong shape, numbers that cannot be, or an engine that is closed or in use by
        another thread; OSError only when the engine itself fails.
        """

    def read_open(self, files: Sequence[int], ranges: Int64s, *, residency: bool, ranges_done: Int64s) -> None:
        """The same for descriptors that are open already; they stay open. Ranges may come in any order.

        How the kernel reads ahead is the caller's to say (posix_fadvise).
        """

    def register(self, address: int, size_bytes: int) -> bool:
        """Tell the kernel of up to 1 GiB of memory that will be read into often; True when it took it. Never needed.

        It spares reads past the page cache the pinning of pages, if they lie wholly inside of one registration.
        The memory must stay mapped until `unregister` or `close`.
        """

    def unregister(self, address: int) -> None:
        """Take a registration back."""

    def close(self) -> None:
        """Release the ring or the threads."""
