"""The interface between files and what holds their bytes: slices are written once, read in parts, and removed.

A slice never changes: a store needs no locks between readers and writers, and whatever was read may be kept for ever.
What makes a slice part of a file is the metadata's transaction alone, which comes after the bytes are stored.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from stoker.core.units import KiB
from stoker.fs.meta.slices import Slice

Bytes = bytes | bytearray | memoryview
SMALL_SLICE_BYTES: Final = 256 * KiB
SMALL_CELL_BYTES: Final = 16 * KiB
"""Small slices may hold many small files: checksums of their copies are over cells of this size, to be read one by one.
"""


class SliceRange(msgspec.Struct, frozen=True):
    """`length` bytes of a slice from `offset` on."""

    slice: Slice
    offset: int
    length: int


class SliceStore(Protocol):
    """Holds the bytes of slices. Every method may be called from many threads at once."""

    def write(self, data: Slice, parts: Sequence[Bytes], *, durable: bool) -> None:
        """Store a whole slice, whose bytes are the parts one behind the other: `data.size_bytes` of them.

        When it returns, whoever reads the slice gets these bytes; with `durable` a power failure leaves them too. The
        same slice may be stored again with the same bytes (a retry). Raises NoSpaceError, StoreError.
        """

    def make_durable(self, slices: Sequence[Slice]) -> None:
        """Return when slices that were stored without `durable` would survive a power failure."""

    def read(self, ranges: Sequence[SliceRange]) -> list[Bytes]:
        """Return the bytes of each range, verified against the checksums they were stored with.

        Raises NotFoundError for a slice that is not there, CorruptError for bytes that are not those stored, and
        StoreError; of several ranges the error tells the first.
        """

    def remove(self, slices: Sequence[Slice]) -> None:
        """Remove slices for good; those that are not there are removed already."""

    def inventory(self) -> Iterator[Slice]:
        """Return every slice that is there, in no order. An error ends the iteration: it is never taken as complete."""

    def close(self) -> None:
        """Give everything back; closing twice is harmless."""
