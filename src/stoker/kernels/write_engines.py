"""Opening a write engine: the native ones when they are there, else the plain twin."""

import errno
import os
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

from stoker.core.errors import UnavailableError, UsageError
from stoker.kernels.native import REMEDY, kernel_status, native_kernels
from stoker.kernels.plain_writing import PlainWriteEngine
from stoker.kernels.writing import (
    WRITE_DEPTH,
    WRITE_REQUEST_BYTES,
    Int64s,
    WriteEngine,
    WritePolicy,
    check_settings,
    fsync_number,
)

WRITE_KINDS: Final = ("auto", "io_uring", "threads", "plain")


class NativeWriteEngine:
    """See `stoker.kernels.writing.WriteEngine`. It may wander from thread to thread, a ring is then opened anew."""

    def __init__(self, kind: str, *, buffered_in_turn: bool, queue_depth: int, request_bytes: int) -> None:
        module = native_kernels()
        assert module is not None
        self.kind = kind
        self._engine = module.WriteEngine(kind == "io_uring", buffered_in_turn)
        self.queue_depth = queue_depth
        self.request_bytes = request_bytes

    @property
    def queue_depth(self) -> int:
        """Return how many requests are under way at once."""
        return int(self._engine.queue_depth)

    @queue_depth.setter
    def queue_depth(self, count: int) -> None:
        check_settings(count, WRITE_REQUEST_BYTES)
        self._engine.queue_depth = count

    @property
    def request_bytes(self) -> int:
        """Return the size of one request."""
        return int(self._engine.request_bytes)

    @request_bytes.setter
    def request_bytes(self, size_bytes: int) -> None:
        check_settings(1, size_bytes)
        self._engine.request_bytes = size_bytes

    def write_open(self, file: int, pieces: Int64s, *, fsync: str = "none") -> int:
        """Write all pieces at once."""
        return _checked(self._engine.write_open(file, _columns(pieces), fsync_number(fsync, start=True)))

    def begin_open(self, file: int, pieces: Int64s) -> None:
        """Write in a thread of the engine."""
        _checked(self._engine.begin_open(file, _columns(pieces)))

    def finish_open(self) -> int:
        """Wait for that thread."""
        return int(self._engine.finish_open())

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
        """Write the files in groups: the content of all, then the syncs of all, then their names."""
        real = [os.fsencode(name) for name, _ in names]
        temporary = [os.fsencode(name) for _, name in names]
        how = (policy.flags, fsync_number(policy.fsync), policy.if_absent)
        columns = (_columns(pieces), _columns(sizes))
        error = _checked(self._engine.write_files(folder, real, temporary, *columns, how, _columns(files_done)))
        if error:
            raise OSError(error, os.strerror(error), "io_uring")

    def close(self) -> None:
        """Release the ring."""
        self._engine.close()


def _columns(numbers: Int64s) -> Int64s:
    # The binding refuses other kinds of columns with a message about its C++ types.
    if numbers.dtype != np.int64 or not numbers.flags.c_contiguous:
        raise UsageError("columns are no C-ordered 64-bit numbers", got=str(numbers.dtype))
    return numbers


def _checked(answer: int) -> int:
    if answer < 0:
        raise UsageError("columns have a wrong shape or hold a number that cannot be")
    return answer


def open_write_engine(
    kind: str = "auto", *, queue_depth: int = WRITE_DEPTH, request_bytes: int = WRITE_REQUEST_BYTES
) -> WriteEngine:
    """Return an engine; `auto` takes the best there is.

    With `auto` what goes through the page cache is written in turn, because a ring gained nothing there, neither for
    files of 100 KiB nor for one of 140 MiB; O_DIRECT and the syncs of many files go through the ring, else by
    threads. `io_uring` and `threads` put everything through what they name.

    Raises UsageError for an unknown kind or settings out of range, UnavailableError for one that cannot be had here.
    """
    if kind not in WRITE_KINDS:
        raise UsageError("write engine is unknown", expected=" or ".join(WRITE_KINDS), got=repr(kind))
    check_settings(queue_depth, request_bytes)
    native = native_kernels() is not None
    if kind == "plain" or (kind == "auto" and not native):
        return PlainWriteEngine(queue_depth, request_bytes)
    if not native:
        raise UnavailableError(f"write engine {kind!r} is not to be had", got=kernel_status().reason, remedy=REMEDY)
    ring_error = 0 if kind == "threads" else _ring_error()
    if kind == "io_uring" and ring_error:
        raise UnavailableError(
            "io_uring is not to be had here",
            got=os.strerror(ring_error),
            remedy="allow it (kernel.io_uring_disabled, the container's seccomp filter), or choose io=threads",
        )
    return NativeWriteEngine(
        "threads" if kind == "threads" or ring_error else "io_uring",
        buffered_in_turn=kind == "auto",
        queue_depth=queue_depth,
        request_bytes=request_bytes,
    )


@cache
def _ring_error() -> int:
    """Return why no ring can be had here, 0 when one can."""
    module = native_kernels()
    return errno.ENOSYS if module is None else int(module.write_ring_error())
