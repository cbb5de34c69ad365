"""The words that the native unpack kernels and their plain twin share: columns of what was found where.

Every offset counts from the start of the buffer that holds all files. A row is filled only where its status says
usual; everything else in it is then 0.
"""

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.units import KiB

Int64s = NDArray[np.int64]

USUAL: Final = 1
"""Exactly in the form that common writers give it. Whatever is not 1 is for the format's own reader to judge."""

# Columns of an array found in an .npy or .npz file. All but the last two say what form it has.
ARRAY_STATUS: Final = 0
ARRAY_DTYPE: Final = 1
ARRAY_FORTRAN: Final = 2
ARRAY_SIDES: Final = 3
"""How many sides the array has; their lengths follow, zeros after the last."""
ARRAY_SIDES_MAX: Final = 8
ARRAY_LABEL_DTYPE: Final = ARRAY_SIDES + ARRAY_SIDES_MAX + 1
"""Element type of y.npy, which has one label a sample; 0 when there is none."""
ARRAY_FORM_COLUMNS: Final = ARRAY_LABEL_DTYPE + 1
ARRAY_AT: Final = ARRAY_FORM_COLUMNS
ARRAY_LABEL_AT: Final = ARRAY_AT + 1
ARRAY_COLUMNS: Final = ARRAY_LABEL_AT + 1

HEADER_BYTES_MAX: Final = 64 * KiB

# Columns of a TFRecord. The checksum is the one stored behind the payload, masked; nobody compared it yet.
RECORD_PAYLOAD_AT: Final = 0
RECORD_PAYLOAD_BYTES: Final = 1
RECORD_CHECKSUM: Final = 2
RECORD_IMAGE_AT: Final = 3
RECORD_IMAGE_BYTES: Final = 4
RECORD_COLUMNS: Final = 5

# How a walk along records ended.
SCAN_END: Final = 0
"""Exactly at the file's end."""
SCAN_MORE: Final = 1
"""The next header lies beyond the window."""
SCAN_FULL: Final = 2
"""No room for more records."""
SCAN_BROKEN: Final = 3
"""The next header is wrong, or its record runs over the file's end."""


def dtype_code(descr: bytes) -> int:
    """Return a plain element type as a number: byte order, kind and size, one byte each."""
    return descr[0] << 16 | descr[1] << 8 | int(descr[2:])


@cache
def dtype_of(code: int) -> np.dtype[Any]:
    """Return the element type that `dtype_code` made the number from."""
    return np.dtype(f"{chr(code >> 16)}{chr(code >> 8 & 0xFF)}{code & 0xFF}")
