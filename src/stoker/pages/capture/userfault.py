"""The kernel's own record of written pages: userfaultfd with asynchronous write-protection, read by PAGEMAP_SCAN.

A first write to a protected page costs one fault inside the kernel; nobody handles it, no signal is sent. The scan
reads which pages were written and protects them again in one step, so no write falls between the two.

Sources: ioctl_userfaultfd(2), the kernel's admin-guide/mm/pagemap.rst (PAGEMAP_SCAN, Linux 6.7), linux/userfaultfd.h.
"""

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import weakref
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES: Final = mmap.PAGESIZE
_SYS_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282}
_USER_MODE_ONLY: Final = 1
"""Without it an unprivileged process is refused; asynchronous protection also sees what system calls write."""
_API_VERSION: Final = 0xAA
_API: Final = 0xC018AA3F
_REGISTER: Final = 0xC020AA00
_WRITEPROTECT: Final = 0xC018AA06
_REGISTER_MODE_WP: Final = 2
_PROTECT: Final = 1
_FEATURES: Final = {"PAGEFAULT_FLAG_WP": 1 << 0, "WP_HUGETLBFS_SHMEM": 1 << 12, "WP_UNPOPULATED": 1 << 13}
_FEATURES_ASYNC: Final = {"WP_ASYNC": 1 << 15}
_PAGEMAP_SCAN: Final = 0xC0606610
_SCAN_PROTECT: Final = 1
_SCAN_CHECK_ASYNC: Final = 2
_PAGE_IS_WRITTEN: Final = 2
_SCAN_ARGUMENT: Final = struct.Struct("<12Q")
_REGIONS_A_SCAN: Final = 1024

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _open_userfault() -> int:
    """Return a descriptor with the features negotiated. Raises OSError with the kernel's reason."""
    number = _SYS_USERFAULTFD.get(platform.machine())
    if number is None:
        raise OSError(f"userfaultfd is not known for {platform.machine()}")
    descriptor = int(_LIBC.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY))
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"userfaultfd: {os.strerror(error)}")
    wanted = _FEATURES | _FEATURES_ASYNC
    try:
        fcntl.ioctl(descriptor, _API, struct.pack("<QQQ", _API_VERSION, sum(wanted.values()), 0))
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, f"the kernel lacks userfaultfd features ({', '.join(wanted)})") from error
    return descriptor


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


class Userfault:
    """One userfaultfd and one view of the page map; closing them ends the protection of all it protects.

    Closing, not unregistering: the kernel then clears only mappings that are still ours, should the memory be gone.
    Raises OSError where the kernel refuses. A forked child loses it: the descriptors speak of the parent's memory.
    """

    def __init__(self) -> None:
        self._descriptors: list[int] = [_open_userfault()]
        self._finalizer = weakref.finalize(self, _close_all, self._descriptors)
        try:
            self._descriptors.append(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._finalizer()
            raise
        _OPEN.add(self)

    @property
    def usable(self) -> bool:
        """Tell whether it is open, and of this process."""
        return bool(self._descriptors)

    def close(self) -> None:
        """Release the memory and the descriptors; may be repeated."""
        _OPEN.discard(self)
        self._finalizer()

    def protect(self, address: int, size_bytes: int) -> None:
        """Begin to notice writes to whole pages. Raises OSError: EINVAL, neither anonymous nor shared; EBUSY, taken."""
        fault = self._descriptors[0]
        fcntl.ioctl(fault, _REGISTER, struct.pack("<QQQQ", address, size_bytes, _REGISTER_MODE_WP, 0))
        fcntl.ioctl(fault, _WRITEPROTECT, struct.pack("<QQQ", address, size_bytes, _PROTECT))

    def written(self, address: int, size_bytes: int, *, reset: bool) -> NDArray[np.int64]:
        """Return the written ranges as (start, end) addresses, shape (n, 2); `reset` protects them again at once."""
        flags = _SCAN_CHECK_ASYNC | (_SCAN_PROTECT if reset else 0)
        regions = np.zeros((_REGIONS_A_SCAN, 3), np.uint64)
        found: list[NDArray[np.uint64]] = []
        start, end = address, address + size_bytes
        while start < end:
            argument = bytearray(
                _SCAN_ARGUMENT.pack(
                    _SCAN_ARGUMENT.size,
                    flags,
                    start,
                    end,
                    0,
                    regions.ctypes.data,
                    _REGIONS_A_SCAN,
                    0,
                    0,
                    _PAGE_IS_WRITTEN,
                    0,
                    _PAGE_IS_WRITTEN,
                )
            )
            count = fcntl.ioctl(self._descriptors[1], _PAGEMAP_SCAN, argument)
            found.append(regions[:count, :2].copy())
            start = _SCAN_ARGUMENT.unpack(argument)[4]
        return np.concatenate(found).astype(np.int64) if found else np.zeros((0, 2), np.int64)


_OPEN: Final[weakref.WeakSet[Userfault]] = weakref.WeakSet()


def _abandon() -> None:
    """Close the child's copies: through them it would protect and scan its parent's memory."""
    for fault in list(_OPEN):
        fault.close()


os.register_at_fork(after_in_child=_abandon)


@cache
def probe_userfault() -> str:
    """Return why writes cannot be tracked here, empty where they can; tried once on a page of our own."""
    try:
        fault = Userfault()
    except OSError as error:
        return _reason(error)
    try:
        with mmap.mmap(-1, PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
            address = np.frombuffer(page, np.uint8).ctypes.data
            fault.protect(address, PAGE_BYTES)
            page[0] = 1
            seen = fault.written(address, PAGE_BYTES, reset=True)
            again = fault.written(address, PAGE_BYTES, reset=True)
        return "" if len(seen) == 1 and len(again) == 0 else "the kernel does not tell which pages were written"
    except OSError as error:
        return _reason(error)
    finally:
        fault.close()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
