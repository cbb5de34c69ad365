"""A self-contained binary table: facts as JSON, columns as little-endian numbers, a checksum over all of it.

    8 bytes   b"STOKERC1"
    4 bytes   length of the header, u32
    header    JSON: kind, version, rows, facts, columns; padded with spaces so that the columns begin at 8 n
    columns   one after the other, each padded with zeros to 8 n: raw, zlib, or one value that all rows share
    8 bytes   XXH3-64 of everything before, u64

Nothing is trusted on reading: the checksum is compared first, and no column is unpacked to more than its rows need
or than its packed size can hold.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.core.units import KiB, MiB
from stoker.loader.dataset.naming import FILES_MAX

MAGIC: Final = b"STOKERC1"
HEADER_BYTES_MAX: Final = 1 * MiB
_START: Final = struct.Struct("<8sI")
_END: Final = struct.Struct("<Q")
_ALIGN_BYTES: Final = 8
_DTYPES: Final = ("<i8", "<u8", "|u1")
_DEFLATE_RATIO_MAX: Final = 1032
_TRIAL_BYTES: Final = 64 * KiB

Column = NDArray[Any]


class _ColumnHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column as stored; `count` is how many values it has (the rows, but for a text's bytes)."""

    name: str
    dtype: str
    codec: str
    count: int
    stored_bytes: int


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    version: int
    rows: int
    facts: msgspec.Raw
    columns: list[_ColumnHeader]


class Table(msgspec.Struct, frozen=True):
    """A table as read: `facts` is JSON still to be decoded by who knows its type."""

    rows: int
    facts: bytes
    columns: dict[str, Column]


def pack(kind: str, version: int, facts: Any, columns: Mapping[str, Column], *, rows: int) -> Iterator[bytes]:
    """Yield the bytes of a table. A column is an int64 or uint64 array of `rows`, or uint8 text of any length."""
    stored = [_store(name, column) for name, column in columns.items()]
    header = _Header(kind, version, rows, msgspec.Raw(msgspec.json.encode(facts)), [head for head, _ in stored])
    text = msgspec.json.encode(header)
    text += b" " * (-(_START.size + len(text)) % _ALIGN_BYTES)
    digest = xxhash.xxh3_64()
    for piece in (_START.pack(MAGIC, len(text)) + text, *(piece for _, piece in stored)):
        digest.update(piece)
        yield piece
    yield _END.pack(digest.intdigest())


def _store(name: str, column: Column) -> tuple[_ColumnHeader, bytes]:
    dtype = column.dtype.newbyteorder("<")
    assert dtype.str in _DTYPES
    codec, data = "raw", b""
    if column.size and (column.strides == (0,) or bool((column == column[0]).all())):
        codec, data = "constant", column[:1].astype(dtype).tobytes()
    elif column.size:
        data = column.astype(dtype, copy=False).tobytes()
        if len(zlib.compress(data[:_TRIAL_BYTES], 1)) < 0.9 * len(data[:_TRIAL_BYTES]):
            codec, data = "zlib", zlib.compress(data, 1)
    data += b"\0" * (-len(data) % _ALIGN_BYTES)
    return _ColumnHeader(name, dtype.str, codec, column.size, len(data)), data


def unpack(data: memoryview, kind: str, version: int, *, where: str) -> Table:
    """Return the table in `data`; raw columns are views of it. Raises CorruptError for anything out of order."""
    try:
        return _unpack(data, kind, version)
    except (msgspec.DecodeError, zlib.error, struct.error) as error:
        raise CorruptError(f"{kind} is damaged", where=where, got=str(error), remedy=_REMEDY) from error
    except CorruptError as error:
        raise CorruptError(error.what, where=where, expected=error.expected, got=error.got, remedy=_REMEDY) from None


_REMEDY: Final = "generate the dataset again"


def _unpack(data: memoryview, kind: str, version: int) -> Table:
    magic, header_bytes = _START.unpack_from(data)
    if magic != MAGIC:
        raise CorruptError(f"not a {kind}", expected=repr(MAGIC), got=repr(magic))
    body = data[: len(data) - _END.size]
    (expected,) = _END.unpack(data[len(body) :])
    got = xxhash.xxh3_64_intdigest(body)
    if got != expected:
        raise CorruptError(f"{kind} fails its checksum", expected=f"{expected:016x}", got=f"{got:016x}")
    start = _START.size + header_bytes
    if header_bytes > HEADER_BYTES_MAX or start > len(body):
        raise CorruptError(f"{kind} has a header of impossible length", got=f"{header_bytes} bytes")
    header = msgspec.json.decode(body[_START.size : start], type=_Header)
    if (header.kind, header.version) != (kind, version):
        told = f"{header.kind} version {header.version}"
        raise CorruptError("table is of another kind", expected=f"{kind} version {version}", got=told)
    if not 0 <= header.rows <= FILES_MAX:
        raise CorruptError(f"{kind} claims an impossible number of rows", got=str(header.rows))
    return Table(header.rows, bytes(header.facts), _columns(header, body[start:]))


def _columns(header: _Header, body: memoryview) -> dict[str, Column]:
    columns = {}
    offset_bytes = 0
    for head in header.columns:
        end = offset_bytes + head.stored_bytes
        if head.stored_bytes < 0 or end > len(body):
            raise CorruptError(f"column {head.name!r} goes beyond the end", got=f"{head.stored_bytes} bytes")
        if head.dtype not in _DTYPES or head.count < 0 or (head.dtype != "|u1" and head.count != header.rows):
            raise CorruptError(f"column {head.name!r} does not fit its table", got=f"{head.count} of {head.dtype!r}")
        columns[head.name] = _load(head, body[offset_bytes:end])
        offset_bytes = end
    if offset_bytes != len(body):
        raise CorruptError("bytes are left over", expected=f"{offset_bytes} bytes", got=f"{len(body)} bytes")
    return columns


def _load(head: _ColumnHeader, stored: memoryview) -> Column:
    dtype = np.dtype(head.dtype)
    if head.codec == "constant" and head.stored_bytes == _ALIGN_BYTES:
        return np.broadcast_to(np.frombuffer(stored, dtype, 1)[0], (head.count,))
    raw_bytes = head.count * dtype.itemsize
    if head.codec == "raw" and raw_bytes <= head.stored_bytes < raw_bytes + _ALIGN_BYTES:
        return np.frombuffer(stored, dtype, head.count)
    if head.codec == "zlib" and raw_bytes <= head.stored_bytes * _DEFLATE_RATIO_MAX:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(stored, raw_bytes + 1)
        if len(data) == raw_bytes and (unpacker.eof or unpacker.decompress(unpacker.unconsumed_tail, 1) == b""):
            return np.frombuffer(data, dtype)
    raise CorruptError(f"column {head.name!r} does not hold {head.count} values of {head.dtype}", got=head.codec)
