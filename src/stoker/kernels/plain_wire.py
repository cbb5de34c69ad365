"""The plain twin of the kernels for deltas of typed elements, in NumPy; words and layouts as in `wiring`."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 0
ULPS: Final = 1
SKIP: Final = 255
Bytes = NDArray[np.uint8]
_TYPES: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
Unsigned = NDArray[np.unsignedinteger]


def elements(data: memoryview | Bytes, width: int) -> Unsigned:
    """Return memory as unsigned numbers of `width` bytes, a view."""
    return np.frombuffer(data, _TYPES[width])


def diff_elements(
    base: memoryview,
    fresh: memoryview,
    width: int,
    mask: Bytes,
    gaps: Bytes,
    base_values: Bytes,
    fresh_values: Bytes,
) -> tuple[int, int]:
    """Write the mask of what differs, the gaps and the values; return how many differ and the bytes of the gaps."""
    was, now = elements(base, width), elements(fresh, width)
    differs = np.zeros(8 * mask.size, np.bool_)
    np.not_equal(was, now, out=differs[: was.size])
    mask[:] = np.packbits(differs, bitorder="little")
    places = np.flatnonzero(differs)
    if len(places) * width > base_values.size:
        return len(places), 0
    made = encode_gaps(places)
    gaps[: made.size] = made
    for values, images in ((base_values, was), (fresh_values, now)):
        values[: width * len(places)] = np.frombuffer(images[places].tobytes(), np.uint8)
    return len(places), made.size


def encode_gaps(places: NDArray[np.int64]) -> Bytes:
    """Return sorted places as gaps: equal elements before each, 255 skips 255."""
    before = np.diff(places, prepend=-1) - 1
    made = np.full(int((before // SKIP).sum()) + len(places), SKIP, np.uint8)
    made[np.cumsum(before // SKIP + 1) - 1] = before % SKIP
    return made


def decode_gaps(gaps: Bytes) -> NDArray[np.int64]:
    """Return the places that gaps name, in order."""
    named = gaps != SKIP
    places: NDArray[np.int64] = (np.cumsum(gaps, dtype=np.int64) + np.cumsum(named) - 1)[named]
    return places


def encode_planes(base: memoryview, fresh: memoryview, width: int, coding: int, planes: Bytes) -> None:
    """Write the codes that lead from `base` to `fresh`, their lowest bytes first."""
    was, now = elements(base, width), elements(fresh, width)
    moved = now - was
    codes = was ^ now if coding == BITS else (moved << 1) ^ (0 - (moved >> (8 * width - 1)))
    planes[:] = codes.astype(was.dtype, copy=False).view(np.uint8).reshape(-1, width).T.reshape(-1)


def decode_values(values: Unsigned, planes: Bytes, coding: int) -> Unsigned:
    """Return the values changed by their codes."""
    width = values.itemsize
    codes = np.ascontiguousarray(planes.reshape(width, -1).T).reshape(-1).view(values.dtype)
    fresh: Unsigned = values ^ codes if coding == BITS else values + ((codes >> 1) ^ (0 - (codes & 1)))
    return fresh


def apply_planes(values: memoryview, width: int, coding: int, planes: memoryview) -> None:
    """Change every element by its code."""
    target = elements(values, width)
    target[:] = decode_values(target, np.frombuffer(planes, np.uint8), coding)


def apply_places(
    values: memoryview, width: int, coding: int, planes: memoryview, places: memoryview, by_gaps: bool
) -> bool:
    """Change the elements that gaps or a mask name; False, and untouched values, where they do not fit."""
    target, codes = elements(values, width), np.frombuffer(planes, np.uint8)
    given = np.frombuffer(places, np.uint8)
    if by_gaps:
        named = decode_gaps(given)
        reach = int(given.sum(dtype=np.int64)) + len(named)
    else:
        named = np.flatnonzero(np.unpackbits(given, bitorder="little"))
        reach = int(named[-1]) + 1 if len(named) else 0
    if width * len(named) != codes.size or reach > target.size:
        return False
    target[named] = decode_values(target[named], codes, coding)
    return True
