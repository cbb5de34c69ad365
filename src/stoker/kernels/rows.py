"""Arrays of MessagePack rows from columns and back: the typed face of the kernel of rows.

All rows of a message are arrays of the same fields: unsigned numbers of 64 bits, and bytes.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels import plain_rows
from stoker.kernels.checking import Readable
from stoker.kernels.native import native_kernels

_HEADS: Final = {0xDC: 2, 0xDD: 4}
"""Letters of long arrays, and the bytes of their lengths; short ones have it in the letter."""
_SHORT: Final = 0x90
_SHORT_MAX: Final = 15
_MIDDLE_MAX: Final = 0xFFFF


class Rows(NamedTuple):
    """Columns of n rows.

    numbers  uint64 of shape (n, numbers of a row)
    places   uint64 of shape (n, blobs of a row, 2): where each blob begins in `data`, and its bytes
    data     memory in which the blobs lie
    """

    numbers: NDArray[np.uint64]
    places: NDArray[np.uint64]
    data: Readable


def encode_rows(kinds: bytes, rows: Rows) -> bytes:
    """Return the rows as one MessagePack array, every number as short as it goes.

    kinds  a letter for each field of a row, at most 15: `u` for a number, `b` for bytes

    Raises ValueError for a blob that leaves its memory.
    """
    count = len(rows.numbers)
    if count <= _SHORT_MAX:
        head = bytes([_SHORT | count])
    elif count <= _MIDDLE_MAX:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    body: bytes = (native_kernels() or plain_rows).encode_rows(
        kinds, np.ascontiguousarray(rows.numbers), np.ascontiguousarray(rows.places), memoryview(rows.data)
    )
    return head + body


def decode_rows(kinds: bytes, message: Readable) -> Rows:
    """Return the columns of a MessagePack array of such rows. Raises CorruptError for anything else."""
    view = memoryview(message)
    native = native_kernels()
    if native is None:
        found = plain_rows.decode_rows(kinds, view)
        if found is None:
            raise CorruptError("rows are not whole, or not of the kinds expected", got=f"{view.nbytes} bytes")
        numbers = np.array(found[0], np.uint64).reshape(len(found[0]), kinds.count(b"u"))
        return Rows(numbers, *plain_rows.places_of(found[1], kinds.count(b"b")))
    count, start = _head(view)
    # A field takes a byte at least: no length that is made up takes memory.
    if count * (len(kinds) + 1) <= view.nbytes - start:
        numbers = np.empty((count, kinds.count(b"u")), np.uint64)
        places = np.empty((count, kinds.count(b"b"), 2), np.uint64)
        if (native.decode_rows(kinds, view, start, numbers, places) or start) == view.nbytes:
            return Rows(numbers, places, message)
    raise CorruptError("rows are not whole, or not of the kinds expected", got=f"{view.nbytes} bytes")


def _head(view: memoryview) -> tuple[int, int]:
    """Return how many rows an array has, and where they begin; more than any has where it is none."""
    first = view[0] if view.nbytes else 0
    if first & 0xF0 == _SHORT:
        return first & 0x0F, 1
    size = _HEADS.get(first, 0)
    if not size or view.nbytes <= size:
        return 1 << 32, 0
    return int.from_bytes(view[1 : 1 + size], "big"), 1 + size
