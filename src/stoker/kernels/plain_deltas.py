"""The plain twin of the delta kernels, in NumPy; see `stoker.pages.frames` for the TWO_LEVEL payload."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

LINE_BYTES: Final = 64
Bytes = NDArray[np.uint8]


def two_level_bound(page_bytes: int) -> int:
    """Return the most bytes a payload can have for pages of this size: bitmap, a mask a line, every byte."""
    lines = -(-page_bytes // LINE_BYTES)
    return 8 * -(-lines // 64) + 8 * lines + page_bytes


def two_level_diff(base: memoryview, fresh: memoryview) -> tuple[bytes, int]:
    """Return the payload that leads from `base` to `fresh`, and how many bytes differ."""
    was, now = np.frombuffer(base, np.uint8), np.frombuffer(fresh, np.uint8)
    differs = was != now
    return encode_mask(differs, now[differs]), int(differs.sum())


def two_level_diff_update(base: memoryview, fresh: memoryview) -> tuple[bytes, int]:
    """The same, and copy what changed into `base`."""
    found = two_level_diff(base, fresh)
    np.copyto(np.frombuffer(base, np.uint8), np.frombuffer(fresh, np.uint8))
    return found


def encode_mask(differs: NDArray[np.bool_], values: Bytes) -> bytes:
    """Return the payload that writes `values` where `differs`, a flag for each byte of the page, is set."""
    if not len(values):
        return b""
    lines = -(-differs.size // LINE_BYTES)
    by_line = np.zeros((lines, LINE_BYTES), np.bool_)
    by_line.reshape(-1)[: differs.size] = differs
    dirty = np.zeros(-(-lines // 64) * 64, np.bool_)
    dirty[:lines] = by_line.any(axis=1)
    bitmap = np.packbits(dirty, bitorder="little")
    masks = np.packbits(by_line[dirty[:lines]], bitorder="little")
    return b"".join((bitmap.tobytes(), masks.tobytes(), values.tobytes()))


def decode_mask(page_bytes: int, payload: memoryview) -> tuple[NDArray[np.bool_], Bytes] | None:
    """Return the flags of the bytes that change, and their values; None for a payload that does not fit the page."""
    data = np.frombuffer(payload, np.uint8)
    if not data.size:
        return np.zeros(page_bytes, np.bool_), data
    lines = -(-page_bytes // LINE_BYTES)
    masks_start = 8 * -(-lines // 64)
    if data.size < masks_start:
        return None
    dirty = np.unpackbits(data[:masks_start], bitorder="little").astype(np.bool_)
    values_start = masks_start + 8 * int(dirty.sum())
    if dirty[lines:].any() or data.size < values_start:
        return None
    by_line = np.zeros((lines, LINE_BYTES), np.bool_)
    flags = np.unpackbits(data[masks_start:values_start], bitorder="little")
    by_line[dirty[:lines]] = flags.reshape(-1, LINE_BYTES).astype(np.bool_)
    flat = by_line.reshape(-1)
    if flat[page_bytes:].any() or int(flat.sum()) != data.size - values_start:
        return None
    return flat[:page_bytes], data[values_start:]


def two_level_apply(page: memoryview, payload: memoryview) -> bool:
    """Overwrite what the payload says; False, and an untouched page, where it does not fit."""
    target = np.frombuffer(page, np.uint8)
    found = decode_mask(target.size, payload)
    if found is not None:
        target[found[0]] = found[1]
    return found is not None


def two_level_changed(page_bytes: int, payload: memoryview) -> int:
    """Return how many bytes the payload changes, or -1 where it does not fit the page."""
    if not payload.nbytes:
        return 0
    found = decode_mask(page_bytes, payload)
    return -1 if found is None else len(found[1])


def two_level_diff_many(
    bases: memoryview, freshes: memoryview, payloads: Bytes, offsets: NDArray[np.int64], changed: NDArray[np.int64]
) -> int:
    """Write the payloads of many pages one behind the other; return the bytes written."""
    was, now = (np.frombuffer(images, np.uint8).reshape(len(changed), -1) for images in (bases, freshes))
    offsets[0] = end = 0
    for index in range(len(changed)):
        payload, changed[index] = two_level_diff(was[index].data, now[index].data)
        payloads[end : end + len(payload)] = np.frombuffer(payload, np.uint8)
        offsets[index + 1] = end = end + len(payload)
    return end
