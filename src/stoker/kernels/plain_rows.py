"""The plain twin of the kernel of rows: MessagePack by msgspec."""

from itertools import accumulate
from types import GenericAlias
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_NUMBER: Final = ord("u")


def encode_rows(kinds: bytes, numbers: NDArray[np.uint64], places: NDArray[np.uint64], data: memoryview) -> bytes:
    """Return the rows. Raises ValueError for a blob that leaves its memory."""
    pieces = []
    for row, spots in zip(numbers.tolist(), places.tolist(), strict=True):
        if any(start + size > data.nbytes for start, size in spots):
            raise ValueError("columns of these sizes do not fit together")
        fields = {True: iter(row), False: iter([bytes(data[start : start + size]) for start, size in spots])}
        pieces.append(msgspec.msgpack.encode([next(fields[kind == _NUMBER]) for kind in kinds]))
    return b"".join(pieces)


def decode_rows(kinds: bytes, message: memoryview) -> tuple[list[list[int]], list[list[bytes]]] | None:
    """Return numbers and blobs of each row of a whole array; None where it is none, or of other kinds."""
    row = GenericAlias(tuple, tuple(int if kind == _NUMBER else bytes for kind in kinds))
    try:
        rows: Any = msgspec.msgpack.decode(message, type=GenericAlias(list, (row,)))
    except msgspec.MsgspecError:
        return None
    numbers = [[field for field in each if isinstance(field, int)] for each in rows]
    if any(number < 0 for each in numbers for number in each):
        return None
    return numbers, [[field for field in each if isinstance(field, bytes)] for each in rows]


def places_of(blobs: list[list[bytes]], blobs_a_row: int) -> tuple[NDArray[np.uint64], bytes]:
    """Return where each blob begins in their bytes, one behind the other, and its size; and these bytes."""
    flat = [blob for row in blobs for blob in row]
    ends = list(accumulate((len(blob) for blob in flat), initial=0))
    places = np.array([ends[:-1], [len(blob) for blob in flat]], np.uint64).T
    return np.ascontiguousarray(places.reshape(len(blobs), blobs_a_row, 2)), b"".join(flat)
