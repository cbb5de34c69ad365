"""Parquet's plain numbers without Arrow: which columns of a row group are such, and their arrays.

Most training data are uncompressed numbers of a fixed width, and then a page is a short header and an array. Those a
kernel takes apart, all columns of a row group in one call; what is in any way unusual is Arrow's to read, and to judge.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stoker.formats.api import Array, Int64s, Lend
from stoker.formats.parquet_footer import LIBRARY_ERRORS, Chunk, RowGroup
from stoker.kernels.page_jobs import (
    JOB_AT,
    JOB_BYTES,
    JOB_COLUMNS,
    JOB_LEVELS,
    JOB_LIST_SIZE,
    JOB_OUT_AT,
    JOB_OUT_WIDTH,
    JOB_VALUES,
    JOB_WIDTH,
    LEVELS_MAX,
)
from stoker.kernels.page_unpacking import unpack_columns
from stoker.kernels.unpack_columns import USUAL

_ALIGNED_BYTES: Final = 64
_RATIO_MAX: Final = 64
"""A bit stands for a value of 8 bytes at most where a dictionary is used; what grows more is left to Arrow."""

_WIDTHS: Final = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}


class Leaf(msgspec.Struct, frozen=True):
    """A column of plain numbers: `width` bytes a value in the file, `dtype` in an array; `list_size` values a row.

    A list_size of 0 is no list, None one whose size only its rows tell. `levels` is the definition level of a value
    that is not null. `bytes_a_row` is that of binaries of fixed width, which show as rows of bytes; else 0.
    """

    path: str
    width: int
    dtype: np.dtype[Any]
    list_size: int | None
    levels: int
    bytes_a_row: int = 0


class PlainGroup(msgspec.Struct, frozen=True):
    """What to take apart of one row group: a job for each of `names`, its places counted in the bytes of `ranges`."""

    ranges: Sequence[tuple[int, int]]
    names: tuple[str, ...]
    jobs: Int64s
    out_bytes: int


def plain_leaves(metadata: Any, names: Sequence[str]) -> dict[str, Leaf]:
    """Return those of the named columns that hold plain numbers, as the schema tells."""
    leaves: dict[str, Leaf] = {}
    try:
        fields, stored = metadata.schema.to_arrow_schema(), metadata.schema
        by_name: dict[str, list[Any]] = {}
        for index in range(len(stored)):
            column = stored.column(index)
            by_name.setdefault(column.path.split(".", 1)[0], []).append(column)
        for name in names:
            columns = by_name.get(name, [])
            leaf = _leaf(fields.field(name).type, columns[0]) if len(columns) == 1 else None
            if leaf is not None:
                leaves[name] = leaf
    except LIBRARY_ERRORS:  # what is wrong with the schema is told by who reads it next
        return {}
    return leaves


def _leaf(kind: Any, column: Any) -> Leaf | None:
    """Return what a column of this Arrow type holds, None where it is not plain numbers."""
    types = pa.types
    list_size: int | None = 0
    if types.is_fixed_size_list(kind):
        kind, list_size = kind.value_type, kind.list_size
    elif types.is_list(kind) or types.is_large_list(kind):
        kind, list_size = kind.value_type, None
    if column.max_repetition_level != (list_size != 0) or column.max_definition_level > LEVELS_MAX:
        return None
    physical, levels = column.physical_type, column.max_definition_level
    if physical == "FIXED_LEN_BYTE_ARRAY":
        if types.is_float16(kind) and column.length == 2:
            return Leaf(column.path, 2, np.dtype(np.float16), list_size, levels)
        if types.is_fixed_size_binary(kind) and list_size == 0 and column.length == kind.byte_width > 0:
            return Leaf(column.path, column.length, np.dtype(np.uint8), 0, levels, column.length)
        return None
    width = _WIDTHS.get(physical, 0)
    if not (types.is_integer(kind) or types.is_floating(kind)) or types.is_float16(kind):
        return None
    dtype = np.dtype(kind.to_pandas_dtype())
    narrowed = width == 4 and dtype.itemsize < 4 and dtype.kind in "iu"
    return Leaf(column.path, width, dtype, list_size, levels) if width == dtype.itemsize or narrowed else None


def plain_group(group: RowGroup, ranges: Sequence[tuple[int, int]], leaves: Mapping[str, Leaf]) -> PlainGroup | None:
    """Return the jobs of a row group whose `ranges` are read; None where Arrow has to read all of it."""
    chunks = {chunk.path: chunk for chunk in group.chunks}
    names: list[str] = []
    rows: list[list[int]] = []
    out_bytes = 0
    for name, leaf in leaves.items():
        job = _job(chunks.get(leaf.path), leaf, group.rows, ranges)
        if job is None:
            continue
        job[JOB_OUT_AT] = out_bytes
        out_bytes += -(-job[JOB_VALUES] * job[JOB_OUT_WIDTH] // _ALIGNED_BYTES) * _ALIGNED_BYTES
        names.append(name)
        rows.append(job)
    return PlainGroup(ranges, tuple(names), np.array(rows, np.int64), out_bytes) if names else None


def _job(chunk: Chunk | None, leaf: Leaf, rows: int, ranges: Sequence[tuple[int, int]]) -> list[int] | None:
    if chunk is None or chunk.codec != 0:
        return None
    size = (chunk.values // rows if leaf.list_size is None else leaf.list_size) or 0
    out_width = leaf.bytes_a_row or leaf.dtype.itemsize
    fits = chunk.values == rows * (size or 1) and chunk.values * out_width <= chunk.length_bytes * _RATIO_MAX
    if not fits or (leaf.list_size != 0 and size == 0):
        return None
    at = 0
    for start, length in ranges:
        if start <= chunk.offset_bytes < start + length:
            at += chunk.offset_bytes - start
            break
        at += length
    job = [0] * JOB_COLUMNS
    job[JOB_AT], job[JOB_BYTES], job[JOB_VALUES] = at, chunk.length_bytes, chunk.values
    job[JOB_WIDTH], job[JOB_OUT_WIDTH] = leaf.width, out_width
    job[JOB_LIST_SIZE], job[JOB_LEVELS] = size, leaf.levels
    return job


def plain_columns(
    data: NDArray[np.uint8], group: PlainGroup, rows: int, leaves: Mapping[str, Leaf], lend: Lend
) -> dict[str, Array]:
    """Return the columns of a row group that turn out to be usual, each an aligned array, sample axis first.

    All lie in one block of memory from `lend`.
    """
    out = lend(group.out_bytes + _ALIGNED_BYTES)
    skew = -out.ctypes.data % _ALIGNED_BYTES
    out = out[skew : skew + group.out_bytes]
    statuses = unpack_columns(data, group.jobs, out)
    columns: dict[str, Array] = {}
    for name, job, status in zip(group.names, group.jobs.tolist(), statuses.tolist(), strict=True):
        if status != USUAL:
            continue
        leaf, start = leaves[name], job[JOB_OUT_AT]
        values = out[start : start + job[JOB_VALUES] * job[JOB_OUT_WIDTH]].view(leaf.dtype)
        in_rows = leaf.list_size != 0 or leaf.bytes_a_row
        columns[name] = values.reshape(rows, -1) if in_rows else values
    return columns
