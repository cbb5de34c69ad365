"""Columns of a Parquet file: as options tell them, as Arrow stores them, as NumPy sees them."""

from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Array
from stoker.formats.base import as_bytes

DATA_COLUMN: Final = "data"
_NUMBERS: Final = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
_TEXTS: Final = {"string": pa.string(), "binary": pa.binary()}
_LIST: Final = "list"
_LIST_ELEMENT: Final = "float32"
_PRINTABLE_FIRST: Final = 32
_PRINTABLE_COUNT: Final = 95


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column: `size` elements (or, for string and binary, bytes) of `dtype` a row; `read` false leaves it out."""

    name: str
    dtype: str
    size: int = 1
    read: bool = True

    @property
    def element(self) -> str:
        """Return the NumPy name of one element in a row of bytes."""
        if self.dtype in _TEXTS:
            return "uint8"
        return _LIST_ELEMENT if self.dtype == _LIST else self.dtype

    @property
    def row_bytes(self) -> int:
        """Return what this column takes of a row of bytes."""
        return self.size * np.dtype(self.element).itemsize

    @property
    def arrow_type(self) -> Any:
        """Return the Arrow type that stores it."""
        if self.dtype in _TEXTS:
            return _TEXTS[self.dtype]
        number = _NUMBERS[self.element]
        if self.size == 1 and self.dtype != _LIST:
            return number
        return pa.list_(pa.field("element", number, nullable=False), self.size)


def parse_columns(value: Any) -> tuple[Column, ...]:
    """Return the option `columns` checked. Raises UsageError naming the column and the rule."""
    try:
        columns = msgspec.convert(msgspec.to_builtins(value), tuple[Column, ...])
    except (msgspec.ValidationError, TypeError) as error:
        raise UsageError(
            "parquet: columns are malformed", expected="a list of {name, dtype, size, read}", got=str(error)
        ) from error
    names = [column.name for column in columns]
    if not any(column.read for column in columns) or len(set(names)) != len(names):
        raise UsageError("parquet: columns need distinct names, and one at least to be read", got=", ".join(names[:8]))
    known = (*_NUMBERS, *_TEXTS, _LIST)
    for column in columns:
        if column.dtype not in known:
            raise UsageError(
                f"parquet: column {column.name!r} has no such dtype", got=column.dtype, expected=str(known)
            )
        if column.size < 1 or not column.name or "." in column.name:
            raise UsageError("parquet: a column needs a name without dots and a size of at least 1", got=str(column))
    return columns


def row_bytes(columns: tuple[Column, ...]) -> int:
    """Return the bytes of one sample that these columns make up."""
    return sum(column.row_bytes for column in columns)


def arrow_schema(columns: tuple[Column, ...]) -> Any:
    """Return the file's schema: nothing may be null, which spares a level to every value."""
    return pa.schema([pa.field(column.name, column.arrow_type, nullable=False) for column in columns])


def byte_wide_paths(columns: tuple[Column, ...]) -> list[str]:
    """Return the storage paths of 8-bit columns, for which a dictionary is the smaller form."""
    narrow = [column for column in columns if column.element in ("int8", "uint8") and column.dtype not in _TEXTS]
    return [
        f"{column.name}.list.element" if column.size > 1 or column.dtype == _LIST else column.name for column in narrow
    ]


def split_rows(rows: Array, columns: tuple[Column, ...]) -> dict[str, Array]:
    """Return what every column holds for rows of bytes, shape (samples, row_bytes) uint8, sample axis first.

    This is the definition that writer and verifier share. Numbers are the bytes as they are; a bool is a byte's
    lowest bit; a string is each byte folded into printable ASCII; strings and binaries show as uint8 (samples, size).
    """
    values: dict[str, Array] = {}
    at = 0
    for column in columns:
        part = rows[:, at : at + column.row_bytes]
        at += column.row_bytes
        array: Array
        if column.dtype == "bool":
            array = (part & 1).astype(np.bool_)
        elif column.dtype == "string":
            array = part % np.uint8(_PRINTABLE_COUNT) + np.uint8(_PRINTABLE_FIRST)
        else:
            array = np.ascontiguousarray(part).view(column.element)
        flat = column.size == 1 and column.dtype not in (*_TEXTS, _LIST)
        values[column.name] = array.reshape(-1) if flat else array
    return values


def to_arrow(values: Array, column: Column) -> Any:
    """Return one column's values as an Arrow array."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if column.dtype in _TEXTS:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(column.size)
        buffers = [None, pa.py_buffer(as_bytes(offsets)), pa.py_buffer(as_bytes(flat))]
        return pa.Array.from_buffers(column.arrow_type, len(values), buffers)
    numbers = pa.array(flat, _NUMBERS[column.element])
    kind = column.arrow_type
    return numbers if kind == _NUMBERS[column.element] else pa.FixedSizeListArray.from_arrays(numbers, type=kind)


def readable(kind: Any) -> bool:
    """Return whether `to_numpy` can show values of this Arrow type."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_primitive(kind.value_type))
    return bool(pa.types.is_primitive(kind) or _is_text(kind) or pa.types.is_fixed_size_binary(kind))


def to_numpy(chunked: Any, name: str) -> Array | list[Array]:
    """Return a column as an array, sample axis first; as a list of arrays when rows differ in length.

    Text and binary show as uint8. Raises CorruptError for nulls, which an array cannot show.
    """
    array = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
    kind = array.type
    if array.null_count:
        raise CorruptError("parquet: column holds nulls", where=name, got=f"{array.null_count} of {len(array)} rows")
    if pa.types.is_fixed_size_list(kind):
        return _numbers(array.flatten(), name).reshape(len(array), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _rows(_numbers(array.flatten(), name), np.asarray(array.offsets))
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        flat = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
        return flat.reshape(len(array), width)
    if _is_text(kind):
        wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
        _, offsets, values = array.buffers()
        starts = np.frombuffer(offsets, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
        flat = np.frombuffer(values, np.uint8) if values is not None and values.size else np.empty(0, np.uint8)
        return _rows(flat[starts[0] : starts[-1]], starts)
    return _numbers(array, name)


def _is_text(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _numbers(array: Any, name: str) -> Array:
    if array.null_count:
        raise CorruptError("parquet: column holds nulls", where=name, got=f"{array.null_count} values")
    numbers: Array = array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type))
    return numbers


def _rows(flat: Array, offsets: Array) -> Array | list[Array]:
    """Cut `flat` into rows at `offsets` (which may start above 0): one array when all are equally long."""
    starts = offsets.astype(np.int64) - int(offsets[0])
    lengths = np.diff(starts)
    if len(lengths) and (lengths == lengths[0]).all():
        return flat.reshape(len(lengths), int(lengths[0]))
    return [flat[start:end] for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
