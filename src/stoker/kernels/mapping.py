"""Files mapped instead of copied: the typed face of the mapping kernel, and its plain twin, which copies.

A mapped range costs a few page-table entries where a copy costs a pass over the memory, so cached files are had almost
for nothing. What makes mappings dangerous is taken care of: a file that shrinks, or a page that its device fails to
give back, would end the process by SIGBUS. The native kernel replaces the rest of such a mapping by zeros and remembers
whose it was (`torn_tag`); the holder asks before it believes what it read.
"""

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stoker.kernels.native import native_kernels

NONE_TORN = -1


class MappingWatch(Protocol):
    """Maps files, and remembers the first of its mappings that lost its file."""

    @property
    def torn_tag(self) -> int:
        """Return the tag of the first mapping that lost its file, -1 while none has."""

    def map_file(self, file: int, offset_bytes: int, size_bytes: int, tag: int) -> NDArray[np.uint8] | None:
        """Return the range's bytes of an open file as a flat, writable array; None where they cannot be had so.

        The array is the holder's own: writing into it never changes the file. Its memory goes with the last view of it.
        """


class PlainMappingWatch:
    """The plain twin: gives the same arrays by copying, since nothing in Python meets a SIGBUS."""

    torn_tag = NONE_TORN

    def map_file(self, file: int, offset_bytes: int, size_bytes: int, tag: int) -> NDArray[np.uint8] | None:
        """Return a copy of the range's bytes; None for one that is empty or goes beyond the file's end."""
        if size_bytes == 0 or offset_bytes + size_bytes > os.fstat(file).st_size:
            return None
        into = np.empty(size_bytes, np.uint8)
        done = 0
        while done < size_bytes:
            got = os.preadv(file, [into[done:].data], offset_bytes + done)
            if got == 0:
                return None
            done += got
        return into


def mapping_watch() -> MappingWatch | None:
    """Return a watch to map files under, None without native kernels: then reading as usual is the better copy."""
    native: Any = native_kernels()
    return None if native is None else native.MappingWatch()


def mappings_held() -> int:
    """Return how many ranges are mapped now, by all watches of this process."""
    native: Any = native_kernels()
    return 0 if native is None else int(native.mappings_held())
