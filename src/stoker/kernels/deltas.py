"""What changed between two images of a page: the typed face of the delta kernels.

Images are contiguous memory of any alignment and element type; they do not change meanwhile. A payload is the TWO_LEVEL
one of `stoker.pages.frames`: it overwrites, so it may be applied twice. Nothing differs: the payload is empty.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.kernels import plain_deltas
from stoker.kernels.checking import Readable
from stoker.kernels.native import native_kernels

Image = Readable | NDArray[Any]
Payload = Readable | NDArray[np.uint8]


class Payloads(NamedTuple):
    """Payloads of many pages: that of page i is buffer[offsets[i]:offsets[i + 1]].

    buffer   uint8, one payload behind the other
    offsets  int64 of shape (pages + 1,)
    changed  int64 of shape (pages,): bytes that differ
    """

    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    changed: NDArray[np.int64]


def two_level_diff(base: Image, fresh: Image) -> tuple[bytes, int]:
    """Return the payload that leads from `base` to `fresh`, and how many bytes differ.

    Raises UsageError for images of two sizes.
    """
    was, now = _pair(base, fresh)
    payload, changed = (native_kernels() or plain_deltas).two_level_diff(was, now)
    return payload, changed


def two_level_diff_update(base: bytearray | memoryview | NDArray[Any], fresh: Image) -> tuple[bytes, int]:
    """Do the same, and copy what changed into `base` in the same pass.

    Raises UsageError for images of two sizes or a base that cannot be written.
    """
    was, now = _pair(base, fresh)
    _require_writable(was)
    payload, changed = (native_kernels() or plain_deltas).two_level_diff_update(was, now)
    return payload, changed


def two_level_apply(page: bytearray | memoryview | NDArray[Any], payload: Payload) -> None:
    """Overwrite in `page` what the payload says.

    Raises CorruptError, and leaves the page as it is, for a payload that does not fit it; UsageError for a page that
    cannot be written.
    """
    target = _seen(page)
    _require_writable(target)
    if not (native_kernels() or plain_deltas).two_level_apply(target, _seen(payload)):
        raise _misfit(target.nbytes, payload)


def two_level_changed(page_bytes: int, payload: Payload) -> int:
    """Return how many bytes of a page the payload changes. Raises CorruptError for one that does not fit."""
    changed = int((native_kernels() or plain_deltas).two_level_changed(page_bytes, _seen(payload)))
    if changed < 0:
        raise _misfit(page_bytes, payload)
    return changed


def two_level_parts(page_bytes: int, payload: Payload) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return a flag for each byte of the page, and the new values of those that are set.

    Raises CorruptError for a payload that does not fit the page.
    """
    found = plain_deltas.decode_mask(page_bytes, _seen(payload))
    if found is None:
        raise _misfit(page_bytes, payload)
    return found


def two_level_from_mask(mask: NDArray[np.bool_], values: NDArray[np.uint8]) -> bytes:
    """Return the payload that writes `values` where `mask`, a flag for each byte of the page, is set.

    Raises UsageError unless there are as many values as flags that are set.
    """
    if int(mask.sum()) != len(values):
        raise UsageError("mask and values of a delta disagree", expected=f"{mask.sum()} values", got=f"{len(values)}")
    return plain_deltas.encode_mask(mask, values)


def two_level_diff_many(bases: NDArray[np.uint8], freshes: NDArray[np.uint8]) -> Payloads:
    """Compare many pages of one size: two uint8 arrays of shape (pages, bytes), contiguous.

    Raises UsageError for arrays of other or two shapes.
    """
    if bases.ndim != 2 or bases.shape != freshes.shape or bases.dtype != np.uint8 or freshes.dtype != np.uint8:
        raise UsageError(
            "images of many pages do not fit together",
            expected="two uint8 arrays of one shape (pages, bytes)",
            got=f"{bases.dtype} {bases.shape} and {freshes.dtype} {freshes.shape}",
        )
    count, page_bytes = bases.shape
    offsets, changed = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    if not bases.size:
        return Payloads(np.empty(0, np.uint8), offsets, changed)
    room = np.empty(count * plain_deltas.two_level_bound(page_bytes), np.uint8)
    kernels = native_kernels() or plain_deltas
    used = kernels.two_level_diff_many(
        np.ascontiguousarray(bases), np.ascontiguousarray(freshes), room, offsets, changed
    )
    return Payloads(room[:used].copy(), offsets, changed)


def _pair(base: Image, fresh: Image) -> tuple[memoryview, memoryview]:
    was, now = _seen(base), _seen(fresh)
    if was.nbytes != now.nbytes:
        raise UsageError("two images differ in size", expected=f"{was.nbytes} bytes", got=f"{now.nbytes} bytes")
    return was, now


def _require_writable(page: memoryview) -> None:
    if page.readonly:
        raise UsageError("memory of a page cannot be written", got="read-only memory")


def _misfit(page_bytes: int, payload: Payload) -> CorruptError:
    return CorruptError(
        "delta does not fit its page",
        expected=f"masks within {page_bytes} bytes, and the bytes they ask for",
        got=f"{_seen(payload).nbytes} bytes",
    )


def _seen(memory: Image) -> memoryview:
    return memory.data if isinstance(memory, np.ndarray) else memoryview(memory)
