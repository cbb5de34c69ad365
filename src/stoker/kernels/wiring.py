"""Deltas of typed elements for disk and network: the typed face of the wire kernels.

Elements have 1, 2, 4 or 8 bytes. Their places are gaps (a byte an element: how many equal ones lie before it, where 255
skips 255 and names none) or a mask (a bit an element, the last 64 padded with zeros). How they changed is a code each:
the bitwise difference, or the difference as whole numbers with small ones of either sign near 0. Codes are written in
planes: the lowest bytes of all, then the second ones, and so on.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import plain_wire
from stoker.kernels.checking import Readable
from stoker.kernels.native import native_kernels

WIDTHS: Final = (1, 2, 4, 8)
Bytes = NDArray[np.uint8]


class Coding(IntEnum):
    """How a change is coded."""

    BITS = plain_wire.BITS
    ULPS = plain_wire.ULPS


class Elements(NamedTuple):
    """What differs between two images, as `diff_elements` finds it.

    changed       how many elements differ
    mask          a bit an element, uint8, a multiple of 8 bytes
    gaps          their places, uint8; None where more differ than was asked for, as are the values then
    base_values   the old values, uint8
    fresh_values  the new ones
    """

    changed: int
    mask: Bytes
    gaps: Bytes | None
    base_values: Bytes | None
    fresh_values: Bytes | None


def mask_bytes(count: int) -> int:
    """Return the bytes of a mask of so many elements."""
    return 8 * -(-count // 64)


def diff_elements(base: Readable, fresh: Readable, width: int, values_max: int) -> Elements:
    """Compare two images of one size; gaps and values are given up once more than `values_max` elements differ.

    Raises UsageError for images of two sizes, or that are not whole elements.
    """
    was, now = memoryview(base), memoryview(fresh)
    count = _count(was.nbytes, width)
    if was.nbytes != now.nbytes:
        raise UsageError("two images differ in size", expected=f"{was.nbytes} bytes", got=f"{now.nbytes} bytes")
    kept = min(values_max, count)
    mask = np.empty(mask_bytes(count), np.uint8)
    gaps = np.empty(kept + count // 255 + 1, np.uint8)
    values = np.empty((2, kept * width), np.uint8)
    kernels = native_kernels() or plain_wire
    changed, gap_bytes = kernels.diff_elements(was, now, width, mask, gaps, values[0], values[1])
    if changed > kept:
        return Elements(changed, mask, None, None, None)
    used = changed * width
    return Elements(changed, mask, gaps[:gap_bytes], values[0, :used], values[1, :used])


def encode_planes(base: Readable, fresh: Readable, width: int, coding: Coding) -> Bytes:
    """Return the planes of the codes that lead from `base` to `fresh`, as many bytes as either has.

    Raises UsageError for images of two sizes, or that are not whole elements.
    """
    was, now = memoryview(base), memoryview(fresh)
    _count(was.nbytes, width)
    if was.nbytes != now.nbytes:
        raise UsageError("two images differ in size", expected=f"{was.nbytes} bytes", got=f"{now.nbytes} bytes")
    planes = np.empty(was.nbytes, np.uint8)
    (native_kernels() or plain_wire).encode_planes(was, now, width, int(coding), planes)
    return planes


def apply_planes(values: memoryview, width: int, coding: Coding, planes: Readable) -> None:
    """Change every element by its code. Raises CorruptError for another number of codes than of elements."""
    _count(values.nbytes, width)
    if memoryview(planes).nbytes != values.nbytes:
        raise CorruptError("codes do not fit the elements", expected=f"{values.nbytes} bytes", got=f"{len(planes)}")
    (native_kernels() or plain_wire).apply_planes(values, width, int(coding), memoryview(planes))


def apply_gaps(values: memoryview, width: int, coding: Coding, planes: Readable, gaps: Readable) -> None:
    """Change the elements that the gaps name.

    Raises CorruptError, and leaves the values as they are, where the gaps name another number of elements than there
    are codes, or elements beyond the end.
    """
    _apply_places(values, width, coding, (planes, gaps), by_gaps=True)


def apply_mask(values: memoryview, width: int, coding: Coding, planes: Readable, mask: Readable) -> None:
    """Change the elements that the mask names. Raises as `apply_gaps` does."""
    _apply_places(values, width, coding, (planes, mask), by_gaps=False)


def _apply_places(
    values: memoryview, width: int, coding: Coding, parts: tuple[Readable, Readable], *, by_gaps: bool
) -> None:
    planes, places = memoryview(parts[0]), memoryview(parts[1])
    count = _count(values.nbytes, width)
    fits = planes.nbytes % width == 0 and (by_gaps or places.nbytes == mask_bytes(count))
    kernels = native_kernels() or plain_wire
    if not fits or not kernels.apply_places(values, width, int(coding), planes, places, by_gaps):
        raise CorruptError(
            "places of changed elements do not fit",
            expected=f"{planes.nbytes // width} places within {count} elements",
            got=f"{places.nbytes} bytes of {'gaps' if by_gaps else 'mask'}",
        )


def _count(size_bytes: int, width: int) -> int:
    if width not in WIDTHS or size_bytes % width:
        raise UsageError(
            "memory is not of whole elements", expected="1, 2, 4 or 8 bytes each", got=f"{size_bytes} of {width}"
        )
    return size_bytes // width
