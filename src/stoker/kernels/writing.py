"""Many writes in one call: the words that the native engines and their plain twin share.

A call names pieces of memory and where they go, as columns of numbers. Many small files are written in one call each
whole or not at all: a temporary name, the content, the sync that was asked for, then one step to the real name.
Nothing is raised for a bad file: its status says what happened, and the others are written all the same.

Past the page cache (O_DIRECT) offsets, lengths and addresses are multiples of the device's block; a file is cut to
its true size afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from stoker.core.errors import UsageError
from stoker.core.units import MiB
from stoker.kernels.files import STATUS_GOOD, Int64s

__all__ = [
    "FSYNCS",
    "FSYNC_START",
    "PIECE_ADDRESS",
    "PIECE_COLUMNS",
    "PIECE_COLUMNS_OPEN",
    "PIECE_FILE",
    "PIECE_LENGTH_BYTES",
    "PIECE_OFFSET_BYTES",
    "STATUS_GOOD",
    "WRITE_DEPTH",
    "WRITE_DEPTH_MAX",
    "WRITE_REQUEST_BYTES",
    "WRITTEN_COLUMNS",
    "WRITTEN_MTIME_NS",
    "WRITTEN_SIZE_BYTES",
    "WRITTEN_STATUS",
    "Int64s",
    "WriteEngine",
    "WritePolicy",
    "check_settings",
    "fsync_number",
]

WRITE_REQUEST_BYTES: Final = MiB
WRITE_DEPTH: Final = 32
WRITE_DEPTH_MAX: Final = 1024
_BLOCK_BYTES: Final = 4096

# What is durable when a call returns: nothing, the files' content, or their names in the folder too.
FSYNCS: Final = ("none", "data", "full")
# For an open file: begin to move what lies in the page cache to the device, wait for nothing. A hint.
FSYNC_START: Final = "start"

# Columns of the pieces; an open file's have no number of a file.
PIECE_OFFSET_BYTES: Final = 0
PIECE_LENGTH_BYTES: Final = 1
PIECE_ADDRESS: Final = 2
PIECE_FILE: Final = 3
PIECE_COLUMNS_OPEN: Final = 3
PIECE_COLUMNS: Final = 4

# Columns of what came of a file: status (0 is good, else an errno), and the facts that stat(2) tells of a good one.
WRITTEN_STATUS: Final = 0
WRITTEN_SIZE_BYTES: Final = 1
WRITTEN_MTIME_NS: Final = 2
WRITTEN_COLUMNS: Final = 3


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """How files are made: `flags` (such as O_DIRECT) are added to those of open(2), `fsync` is one of FSYNCS.

    With `if_absent` a name in use is EEXIST, else what carries it is replaced.
    """

    flags: int = 0
    fsync: str = "none"
    if_absent: bool = False


class WriteEngine(Protocol):
    """Writes for one thread at a time; closing it twice is harmless.

    kind        `io_uring`, `threads` (both native) or `plain`
    queue_depth     requests under way at once, 1 to WRITE_DEPTH_MAX; may be changed between calls
    request_bytes   longer pieces are split into requests of this size, a multiple of 4096; may be changed too
    """

    kind: str
    queue_depth: int
    request_bytes: int

    def write_open(self, file: int, pieces: Int64s, *, fsync: str = "none") -> int:
        """Write all pieces of an open file, then sync it; return 0 or the first errno.

        `pieces` has shape (n, PIECE_COLUMNS_OPEN), C-ordered; they may come in any order but must not overlap. The
        memory is the caller's to keep alive and unchanged until this returns. `fsync` is one of FSYNCS (`full` and
        `data` differ in what of the file's facts is durable; its name is the caller's affair) or FSYNC_START.

        The sync begins when all is written. Short writes are continued. After an errno (ENOSPC, EIO, …) nothing is
        known of the file's content; a sync that failed is never tried again, because the kernel would then say that
        all is well. Waits with the GIL dropped. Raises UsageError for columns or numbers that cannot be, OSError
        only when the engine itself fails.
        """

    def begin_open(self, file: int, pieces: Int64s) -> None:
        """Write as `write_open` does, without a sync, behind the caller's back, if the engine can.

        Memory and file are the engine's until `finish_open` returns; every other call waits for it first.
        """

    def finish_open(self) -> int:
        """Wait for what was begun; return 0 or the first errno since the last time, told once."""

    def write_files(
        self,
        folder: int,
        names: Sequence[tuple[str, str]],
        pieces: Int64s,
        sizes: Int64s,
        *,
        policy: WritePolicy,
        files_done: Int64s,
    ) -> None:
        """Make files appear in the open `folder`, each whole or not at all; fill `files_done`.

        `names` holds the name and the temporary name of each file, both plain names in that folder; a temporary one
        must not be in use. `pieces` has shape (n, PIECE_COLUMNS), the files in their order; `sizes` (files,) are
        their true sizes, to which they are cut or made; `files_done` has shape (files, WRITTEN_COLUMNS).

        A file is created, written, cut, synced, and only then given its name. With `full` the folder is synced once,
        at the end; when that fails, every file of the call has failed, though it is there. A file that fails leaves
        no temporary file behind. The rest is as in `write_open`.
        """

    def close(self) -> None:
        """Release the ring."""


def fsync_number(fsync: str, *, start: bool = False) -> int:
    """Return the native engines' number of a policy. Raises UsageError for an unknown one."""
    choices = (*FSYNCS, FSYNC_START) if start else FSYNCS
    if fsync not in choices:
        raise UsageError("fsync policy is unknown", expected=" or ".join(choices), got=repr(fsync))
    return choices.index(fsync)


def check_settings(queue_depth: int, request_bytes: int) -> None:
    """Raise UsageError unless an engine can work with these."""
    if not 1 <= queue_depth <= WRITE_DEPTH_MAX:
        raise UsageError("queue depth is out of range", expected=f"1 to {WRITE_DEPTH_MAX}", got=str(queue_depth))
    if not _BLOCK_BYTES <= request_bytes <= 2**30 or request_bytes % _BLOCK_BYTES:
        raise UsageError(
            "request size is out of range", expected=f"a multiple of {_BLOCK_BYTES}, to 1 GiB", got=str(request_bytes)
        )
