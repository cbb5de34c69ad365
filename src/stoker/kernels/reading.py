"""The read engines: which there are here, and opening one.

`io_uring` keeps many requests under way from one thread, `threads` blocks a thread for each, `plain` reads one after
the other without any native code.
"""

import errno
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import UnavailableError, UsageError
from stoker.kernels.files import QUEUE_DEPTH, REQUEST_BYTES, Int64s, ReadEngine
from stoker.kernels.native import REMEDY, kernel_status, native_kernels
from stoker.kernels.plain_files import (
    BAD_END,
    BAD_NUMBER,
    BAD_ORDER,
    PlainReadEngine,
    check_file_columns,
    check_flags,
    check_settings,
    check_shapes,
)

KINDS: Final = ("io_uring", "threads", "plain")
_FAULTS: Final = {-2: BAD_NUMBER, -3: BAD_END, -4: BAD_ORDER}
_IN_USE: Final = -1
_DENIALS: Final = {
    errno.EPERM: "the kernel denies it (sysctl kernel.io_uring_disabled, or a container's seccomp profile)",
    errno.EACCES: "the kernel denies it (a security module)",
    errno.ENOSYS: "the kernel does not offer what is needed (Linux 5.11)",
    errno.EINVAL: "the kernel does not offer what is needed (Linux 5.11)",
    errno.ENOMEM: "locked memory is used up (ulimit -l)",
}


class EngineFacts(msgspec.Struct, frozen=True):
    """Which kinds of engines are there, the best first, and why `io_uring` is not; empty when it is."""

    kinds: tuple[str, ...]
    io_uring_denied: str = ""


class NativeReadEngine:
    """See `stoker.kernels.files.ReadEngine`: an engine of the native module."""

    def __init__(self, kind: str, queue_depth: int, request_bytes: int) -> None:
        module = native_kernels()
        if module is None:
            raise UnavailableError(f"read engine {kind} is native", got=kernel_status().reason, remedy=REMEDY)
        check_settings(queue_depth, request_bytes)
        self.kind = kind
        self._engine = module.ReadEngine(kind, queue_depth, request_bytes)

    @property
    def queue_depth(self) -> int:
        """Return how many requests may be under way at once."""
        return int(self._engine.queue_depth)

    @queue_depth.setter
    def queue_depth(self, value: int) -> None:
        check_settings(value, self._engine.request_bytes)
        self._engine.queue_depth = value

    @property
    def request_bytes(self) -> int:
        """Return the size of the requests that longer ranges are split into."""
        return int(self._engine.request_bytes)

    @request_bytes.setter
    def request_bytes(self, value: int) -> None:
        check_settings(self._engine.queue_depth, value)
        self._engine.request_bytes = value

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
        """Open, read and close files."""
        check_flags(flags)
        check_shapes(ranges, ranges_done)
        check_file_columns(files_done, len(keys))
        result = self._engine.read_files(folder, keys, flags, ranges, residency, files_done, ranges_done)
        if result != 0:
            raise self._failure(result)

    def read_open(self, files: Sequence[int], ranges: Int64s, *, residency: bool, ranges_done: Int64s) -> None:
        """Read open files."""
        check_shapes(ranges, ranges_done)
        result = self._engine.read_open(files, ranges, residency, ranges_done)
        if result != 0:
            raise self._failure(result)

    def _failure(self, result: int) -> Exception:
        if result in _FAULTS:
            return UsageError(_FAULTS[result])
        if result == _IN_USE:
            return UsageError("read engine serves one thread at a time", got="a second call while one is under way")
        if result == errno.EBADF:
            return UsageError("read engine is closed")
        return OSError(result, os.strerror(result), self.kind)

    def register(self, address: int, size_bytes: int) -> bool:
        """Register memory of up to 1 GiB for reads past the page cache; True when the kernel took it."""
        return bool(self._engine.register(address, size_bytes))

    def unregister(self, address: int) -> None:
        """Take the registration that begins at `address` back. Raises UsageError while a call is under way."""
        if not self._engine.unregister(address):
            raise self._failure(_IN_USE)

    def close(self) -> None:
        """Release the ring or the threads. Raises UsageError while a call is under way."""
        if not self._engine.close():
            raise self._failure(_IN_USE)


def open_read_engine(
    kind: str = "auto", *, queue_depth: int = QUEUE_DEPTH, request_bytes: int = REQUEST_BYTES
) -> ReadEngine:
    """Return an engine of one of `KINDS`; `auto` takes the first of them that is there.

    Raises UsageError for another kind or settings out of bounds, UnavailableError for a kind that is not there.
    """
    if kind not in ("auto", *KINDS):
        raise UsageError("unknown kind of read engine", expected=" or ".join(("auto", *KINDS)), got=kind)
    if kind == "plain" or (kind == "auto" and native_kernels() is None):
        return PlainReadEngine(queue_depth, request_bytes)
    if kind == "threads":
        return NativeReadEngine(kind, queue_depth, request_bytes)
    try:
        return NativeReadEngine("io_uring", queue_depth, request_bytes)
    except OSError as error:
        if kind == "auto":
            return NativeReadEngine("threads", queue_depth, request_bytes)
        raise UnavailableError(
            "read engine io_uring is not available", got=_denial(error), remedy="allow it, or choose threads"
        ) from error


def engine_facts() -> EngineFacts:
    """Return which engines can be opened in this process now."""
    if native_kernels() is None:
        return EngineFacts(("plain",), f"native kernels are not used: {kernel_status().reason}")
    try:
        NativeReadEngine("io_uring", 1, REQUEST_BYTES).close()
    except OSError as error:
        return EngineFacts(KINDS[1:], _denial(error))
    return EngineFacts(KINDS)


def _denial(error: OSError) -> str:
    number = error.errno or 0
    return _DENIALS.get(number, os.strerror(number))
