"""Pages of Parquet columns taken apart into arrays: the usual ones, all columns of a row group in one call.

The pages may hold anything: every length and index in them is checked before it is used. Chunks that are not exactly
in the form that common writers give plain numbers are left to the format's own reader.
"""

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.kernels import plain_page_unpacking
from stoker.kernels.native import native_kernels
from stoker.kernels.page_jobs import (
    JOB_AT,
    JOB_BYTES,
    JOB_COLUMNS,
    JOB_LEVELS,
    JOB_OUT_AT,
    JOB_OUT_WIDTH,
    JOB_VALUES,
    JOB_WIDTH,
    LEVELS_MAX,
    NARROW_WIDTH_MAX,
    NARROWED_WIDTH,
)
from stoker.kernels.unpack_columns import Int64s


def unpack_columns(data: NDArray[np.uint8], jobs: Int64s, out: NDArray[np.uint8]) -> Int64s:
    """Do jobs of the columns told in `page_jobs`, shape (n, JOB_COLUMNS): put each chunk's values into `out`.

    Returns a status for each. Usual is: uncompressed pages of the first kind, values of a fixed width stored plainly or
    by one dictionary, no nulls, lists (if any) all of the size told, exactly as many values as told, nothing behind.
    Checksums of pages are not compared. What `out` holds for an unusual chunk is undefined. `data` and `out` are flat.
    Raises UsageError for a job that does not lie in them.
    """
    jobs = np.ascontiguousarray(jobs, np.int64)
    statuses = np.zeros(len(jobs), np.int64)
    module = native_kernels()
    if module is None:
        _check(data, jobs, out)
        plain_page_unpacking.unpack_columns(data, jobs, out, statuses)
        return statuses
    try:
        module.unpack_columns(data, jobs, out, statuses)
    except (TypeError, ValueError) as error:  # it checks for itself, in a tenth of the time
        raise UsageError("a column chunk does not lie in its buffers", got=str(error)) from error
    return statuses


def _check(data: NDArray[np.uint8], jobs: Int64s, out: NDArray[np.uint8]) -> None:
    flat = all(one.ndim == 1 and one.dtype == np.uint8 and one.flags.c_contiguous for one in (data, out))
    if not flat or jobs.ndim != 2 or jobs.shape[1] != JOB_COLUMNS:
        raise UsageError("column chunks are told in a wrong form", got=f"{data.dtype} {out.dtype} {jobs.shape}")
    if not len(jobs):
        return
    if int(jobs.min()) < 0 or int(jobs[:, JOB_OUT_WIDTH].min()) < 1 or int(jobs[:, JOB_LEVELS].max()) > LEVELS_MAX:
        raise UsageError("a column chunk is told in numbers that cannot be")
    width, out_width = jobs[:, JOB_WIDTH], jobs[:, JOB_OUT_WIDTH]
    narrow = (width == NARROWED_WIDTH) & (out_width <= NARROW_WIDTH_MAX)
    # Compared without adding up: a sum may pass the largest number there is.
    wrong = (width != out_width) & ~narrow
    wrong |= (jobs[:, JOB_BYTES] > len(data)) | (jobs[:, JOB_AT] > len(data) - jobs[:, JOB_BYTES])
    wrong |= jobs[:, JOB_OUT_AT] > len(out)
    wrong |= jobs[:, JOB_VALUES] > (len(out) - jobs[:, JOB_OUT_AT]) // out_width
    if wrong.any():
        raise UsageError("a column chunk does not lie in its buffers", where=str(int(wrong.argmax())))
