"""Making, finding and removing the shared memory of arenas.

A named arena is a file `/dev/shm/stoker-pages-<name>`; an unnamed one is a memfd, attached through its descriptor.
"""

import ctypes
import fcntl
import mmap
import os
import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import AlreadyExistsError, UsageError
from stoker.pages.arena.layout import HUGE_BYTES, PAGE_ALIGN, Geometry, aligned, decode_static, encode_static
from stoker.pages.errors import OutOfSpace, PageNotFound

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - this is where Linux keeps shared memory
PREFIX: Final = "stoker-pages-"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MAP_NORESERVE: Final = 0x4000
_MAP_FIXED: Final = 0x10
_MADV_COLLAPSE: Final = 25
_SEAL_SHRINK: Final = 0x0002
_ADD_SEALS: Final = 1033
_libc: Final = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)


class Mapping:
    """The memory of one arena in this process.

    data     every byte, writable
    words    the same as 64-bit words; one element is loaded and stored at once
    address  of the first byte, in this process
    """

    def __init__(self, descriptor: int, geometry: Geometry, name: str) -> None:
        self.descriptor = descriptor
        self.geometry = geometry
        self.name = name
        self._map, self._lead = _mapped(descriptor, geometry.arena_bytes)
        self.data = memoryview(self._map)[self._lead : self._lead + geometry.arena_bytes]
        self.words = self.data.cast("Q")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + self._lead
        self._huge = self.address % HUGE_BYTES == 0

    @property
    def path(self) -> Path | None:
        """The file of a named arena."""
        return FOLDER / f"{PREFIX}{self.name}" if self.name else None

    def back(self, offset: int, size_bytes: int) -> None:
        """Have the kernel give memory to a range; raises OutOfSpace instead of a fatal signal later."""
        self._back_huge(aligned(offset, HUGE_BYTES), (offset + size_bytes) // HUGE_BYTES * HUGE_BYTES)
        try:
            os.posix_fallocate(self.descriptor, offset, size_bytes)
        except OSError as error:
            raise OutOfSpace(
                "shared memory for pages is full", where=self.name, got=error.strerror or str(error)
            ) from error

    def _back_huge(self, start: int, end: int) -> None:
        """Have huge pages behind whole blocks, where the kernel gives them; what they do not reach is left as it was.

        A block of which there is one page is made a huge page as it stands: that takes a tenth of what 512 small pages
        take, and is done whatever the machine's settings for shared memory say, unless they are `deny`.
        """
        if not self._huge or start >= end:
            return
        try:
            for block in range(start, end, HUGE_BYTES):
                os.posix_fallocate(self.descriptor, block, PAGE_ALIGN)
            self._map.madvise(_MADV_COLLAPSE, self._lead + start, end - start)
        except OSError:
            self._huge = False  # neither the kernel nor this moment has them: it is not asked again

    def is_named(self) -> bool:
        """Tell whether a name leads to it: the last one to leave takes the name away."""
        try:
            return self.path is not None and os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def private(self) -> NDArray[np.uint8]:
        """Return all bytes in a mapping of their own: a page of it that is written becomes this process's copy."""
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        return np.frombuffer(mmap.mmap(self.descriptor, self.geometry.arena_bytes, flags), np.uint8)

    def discard(self) -> None:
        """Give up an arena that was never published."""
        self.close()
        if self.name:
            _unborn(self.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the descriptor; the memory stays mapped while arrays look at it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _mapped(descriptor: int, size_bytes: int) -> tuple[mmap.mmap, int]:
    """Map a file where a huge page may begin; return the mapping, and where in it the file's bytes begin.

    The mapping is of reserved addresses, over which the file is laid: they go together.
    """
    room = mmap.mmap(-1, size_bytes + HUGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(room))
    lead = -begin % HUGE_BYTES
    access, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
    if _libc.mmap(begin + lead, size_bytes, access, flags, descriptor, 0) == begin + lead:
        return room, lead
    return mmap.mmap(descriptor, size_bytes), 0


def check_name(name: str) -> str:
    """Return the name; raises UsageError for one that cannot be a file's."""
    if not NAME.fullmatch(name):
        raise UsageError(
            "name of a store of pages is not usable", expected="letters, digits, dot, dash, underscore", got=name
        )
    return name


def create_mapping(geometry: Geometry, name: str = "") -> Mapping:
    """Make the memory of a new arena, all zero; a name is given to it only by `publish_mapping`.

    Raises UsageError for an unusable name, OutOfSpace when even its tables do not fit.
    """
    if name:
        path = _unborn(check_name(name))
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    else:
        descriptor = os.memfd_create("stoker-pages", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _grow(descriptor, geometry.arena_bytes, name)
        if not name:
            fcntl.fcntl(descriptor, _ADD_SEALS, _SEAL_SHRINK)
        mapping = Mapping(descriptor, geometry, name)
        mapping.back(0, geometry.slot_offset)
        mapping.back(geometry.ring_offset, geometry.ring_bytes)
    except BaseException:
        os.close(descriptor)
        if name:
            _unborn(name).unlink(missing_ok=True)
        raise
    return mapping


def _grow(descriptor: int, size_bytes: int, name: str) -> None:
    try:
        os.ftruncate(descriptor, size_bytes)
    except OSError as error:
        raise OutOfSpace(
            "shared memory for pages is full", where=name, expected=f"{size_bytes} bytes", got=error.strerror or ""
        ) from error


def publish_mapping(mapping: Mapping) -> None:
    """Write the header's fixed part and let the name be found: nobody sees half an arena.

    Raises AlreadyExistsError for a name in use; the memory is given up.
    """
    mapping.data[:256] = encode_static(mapping.geometry)
    if not mapping.name:
        return
    try:
        os.link(_unborn(mapping.name), FOLDER / f"{PREFIX}{mapping.name}")
    except FileExistsError as error:
        mapping.close()
        raise AlreadyExistsError("a store of pages has this name already", where=mapping.name) from error
    finally:
        _unborn(mapping.name).unlink(missing_ok=True)


def _unborn(name: str) -> Path:
    return FOLDER / f".{PREFIX}{name}.{os.getpid()}"


def attach_mapping(where: str | int) -> Mapping:
    """Map an arena by its name, or by a descriptor of which a copy is kept.

    Raises PageNotFound for an unknown name, FormatError and ChecksumError for what is no sound arena.
    """
    if isinstance(where, int):
        descriptor, name, label = os.dup(where), "", f"descriptor {where}"
    else:
        name = label = check_name(where)
        try:
            descriptor = os.open(FOLDER / f"{PREFIX}{name}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise PageNotFound("no store of pages has this name", where=name) from error
    try:
        size_bytes = os.fstat(descriptor).st_size
        return Mapping(
            descriptor, decode_static(os.pread(descriptor, 256, 0), where=label, file_bytes=size_bytes), name
        )
    except BaseException:
        os.close(descriptor)
        raise


def named_arenas() -> list[str]:
    """Return the names of all arenas on this host that this user may see."""
    return sorted(path.name.removeprefix(PREFIX) for path in FOLDER.glob(f"{PREFIX}*"))


def unborn_arenas() -> list[tuple[Path, int]]:
    """Return files of arenas that are being made, with the process that makes them."""
    return _unborn_of(f"{PREFIX}*")


def remove_unborn(name: str) -> None:
    """Remove what is left of arenas of this name whose makers died over them; nobody may be making one."""
    for path, _ in _unborn_of(f"{PREFIX}{check_name(name)}.*"):
        path.unlink(missing_ok=True)


def _unborn_of(pattern: str) -> list[tuple[Path, int]]:
    found = [(path, path.name.rpartition(".")[2]) for path in FOLDER.glob(f".{pattern}")]
    return [(path, int(pid)) for path, pid in found if pid.isdigit()]


def unlink_mapping(name: str) -> None:
    """Remove the name; those who have it mapped keep the memory."""
    (FOLDER / f"{PREFIX}{check_name(name)}").unlink(missing_ok=True)
