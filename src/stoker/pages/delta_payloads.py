"""Payloads of deltas by codec, as `stoker.pages.frames` describes them: made, read, checked and written to pages."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels import deltas
from stoker.kernels.checking import Readable
from stoker.pages.errors import InvalidDelta
from stoker.pages.frames import RUN_RECORD, Codec, padded

Image = Readable | NDArray[Any]
"""Contiguous memory of a page, of any element type."""
Bytes = NDArray[np.uint8]
ELEM_WIDTHS: Final = (1, 2, 4, 8)


def bytes_of(image: Image) -> Bytes:
    """Return the memory as uint8 of shape (bytes,), a view. Raises InvalidDelta for memory that is not contiguous."""
    if isinstance(image, np.ndarray):
        if not image.flags.c_contiguous:
            raise InvalidDelta("image of a page is not contiguous", got=f"strides {image.strides}")
        return image.reshape(-1).view(np.uint8)
    view = memoryview(image)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)


def target_of(target: Image, size_bytes: int) -> Bytes:
    """Return the memory to write as uint8. Raises InvalidDelta unless it can be written and has that size."""
    into = bytes_of(target)
    require_size(into, size_bytes)
    if not into.flags.writeable:
        raise InvalidDelta("memory of a page cannot be written", got="read-only memory")
    return into


def require_size(image: Bytes, size_bytes: int) -> None:
    """Raise InvalidDelta for an image of another size."""
    if image.size != size_bytes:
        raise InvalidDelta("page has another size", expected=f"{size_bytes} bytes", got=f"{image.size} bytes")


def pack(old: Bytes, new: Bytes) -> tuple[Codec, bytes]:
    """Return the codec and the payload that lead from one image to the other: never longer than the page."""
    payload, _ = deltas.two_level_diff(old.data, new.data)
    if len(payload) < new.size or not payload:
        return Codec.TWO_LEVEL, payload
    return Codec.RAW, new.tobytes()


def pack_mask(mask: NDArray[np.bool_], values: Bytes) -> tuple[Codec, bytes]:
    """Return the codec and the payload that write `values` where `mask` is set."""
    if mask.all():
        return Codec.RAW, values.tobytes()
    return Codec.TWO_LEVEL, deltas.two_level_from_mask(mask, values)


def unpack(codec: int, size_bytes: int, payload: Readable) -> tuple[NDArray[np.bool_], Bytes]:
    """Return a flag for each byte that is written, and the values.

    Raises InvalidDelta for a payload that does not fit the page.
    """
    data = bytes_of(payload)
    if codec == Codec.TWO_LEVEL:
        try:
            return deltas.two_level_parts(size_bytes, data.data)
        except CorruptError as error:
            raise _misfit(size_bytes, len(data)) from error
    changed_bytes(codec, size_bytes, payload)
    if codec == Codec.RAW:
        return np.ones(size_bytes, np.bool_), data
    mask, image = np.zeros(size_bytes, np.bool_), np.zeros(size_bytes, np.uint8)
    for offset, run in _runs(size_bytes, data):
        mask[offset : offset + run.size] = True
        image[offset : offset + run.size] = run
    return mask, image[mask]


def changed_bytes(codec: int, size_bytes: int, payload: Readable) -> int:
    """Return how many bytes are written. Raises InvalidDelta for a payload that does not fit the page."""
    if codec == Codec.TWO_LEVEL:
        try:
            return deltas.two_level_changed(size_bytes, payload)
        except CorruptError as error:
            raise _misfit(size_bytes, len(payload)) from error
    if codec == Codec.RAW:
        if len(payload) != size_bytes:
            raise _misfit(size_bytes, len(payload))
        return size_bytes
    if codec != Codec.RUNS:
        raise InvalidDelta("codec of a delta is not known", expected="RAW, TWO_LEVEL or RUNS", got=str(codec))
    total = end = 0
    for offset, run in sorted(_runs(size_bytes, bytes_of(payload)), key=itemgetter(0)):
        total += max(0, offset + run.size - max(end, offset))
        end = max(end, offset + run.size)
    return total


def write(codec: int, target: Bytes, payload: Readable) -> None:
    """Overwrite in `target` what the payload says; where it does not fit, raise InvalidDelta and write nothing."""
    if codec == Codec.TWO_LEVEL:
        try:
            deltas.two_level_apply(target.data, payload)
        except CorruptError as error:
            raise _misfit(target.size, len(payload)) from error
        return
    changed_bytes(codec, target.size, payload)
    data = bytes_of(payload)
    if codec == Codec.RAW:
        target[:] = data
        return
    for offset, run in list(_runs(target.size, data)):
        target[offset : offset + run.size] = run


def _runs(size_bytes: int, data: Bytes) -> Iterator[tuple[int, Bytes]]:
    """Yield offset and bytes of each run, checked against the page and the payload."""
    at = 0
    while at < data.size:
        if at + RUN_RECORD.size > data.size:
            raise _misfit(size_bytes, data.size)
        offset, length = RUN_RECORD.unpack_from(data.data, at)
        at += RUN_RECORD.size
        if offset > size_bytes or length > size_bytes - offset or padded(length) > data.size - at:
            raise _misfit(size_bytes, data.size)
        yield offset, data[at : at + length]
        at += padded(length)


def _misfit(size_bytes: int, payload_bytes: int) -> InvalidDelta:
    return InvalidDelta(
        "payload of a delta does not fit its page",
        expected=f"changes within {size_bytes} bytes",
        got=f"{payload_bytes} bytes that say otherwise",
    )
