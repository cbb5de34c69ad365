"""Deltas of pages: the payload that overwrites what changed between two images of one size."""

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.kernels.checking import Readable


def two_level_diff(base: NDArray[np.uint8], fresh: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Return the payload and how many bytes changed."""
    lines = -(-base.size // 64)
    differs = np.zeros(lines * 64, np.bool_)
    differs[: base.size] = base != fresh
    if not differs.any():
        return b"", 0
    masks = differs.reshape(lines, 64)
    dirty = np.zeros(-(-lines // 64) * 64, np.bool_)
    dirty[:lines] = masks.any(1)
    head = np.packbits(dirty, bitorder="little").tobytes()
    head += np.packbits(masks[dirty[:lines]], axis=1, bitorder="little").tobytes()
    return head + fresh[differs[: base.size]].tobytes(), int(differs.sum())


def two_level_apply(page: memoryview, payload: Readable) -> None:
    """Overwrite what the payload says. Raises CorruptError for one that does not fit."""
    target, given = np.frombuffer(page, np.uint8), np.frombuffer(payload, np.uint8)
    lines = -(-target.size // 64)
    head = -(-lines // 64) * 8
    dirty = np.flatnonzero(np.unpackbits(given[:head], bitorder="little")[:lines])
    masks = np.zeros((lines, 64), np.bool_)
    masks[dirty] = np.unpackbits(given[head : head + 8 * dirty.size].reshape(-1, 8), axis=1, bitorder="little")
    values = given[head + 8 * dirty.size :]
    if int(masks.sum()) != values.size:
        raise CorruptError("delta does not fit its page", expected=f"{int(masks.sum())} bytes", got=str(values.size))
    target[masks.reshape(-1)[: target.size]] = values
