"""The compact protocol of Apache Thrift, as far as a Parquet footer needs it: read what is wanted, skip the rest.

Source: thrift-compact-protocol.md of Apache Thrift. Arrow's own reader ends the process on some lying footers,
so offsets are taken from here, where everything malformed is a CorruptError. A footer holds a column for each
column and row group, a hundred thousand and more in a large file; hence the plain functions and local names.
"""

from collections.abc import Mapping
from typing import Any, Final

from stoker.core.errors import CorruptError

_TRUE: Final = 1
_FALSE: Final = 2
_BINARY: Final = 8
_LIST: Final = 9
_SET: Final = 10
_MAP: Final = 11
_STRUCT: Final = 12
_FIXED_BYTES: Final = {3: 1, 7: 8, 13: 16}
"""Byte, double and UUID."""

_INTEGERS: Final = (4, 5, 6)
_DEPTH_MAX: Final = 24
_VARINT_BITS_MAX: Final = 70

Wanted = Mapping[int, Any]
"""Field number → what is wanted of it: a Wanted for a struct or a list of structs, None for a plain value."""


def parse(data: bytes, wanted: Wanted) -> dict[int, Any]:
    """Return the wanted fields, by number, of the struct that `data` starts with. Raises CorruptError."""
    try:
        return _struct(data, 0, wanted, 0)[0]
    except IndexError as error:
        raise CorruptError("parquet: footer is cut off", got=f"{len(data)} bytes") from error


def _struct(data: bytes, at: int, wanted: Wanted, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _DEPTH_MAX:
        raise CorruptError("parquet: footer is nested too deeply")
    found: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        if number not in wanted:
            at = _skip(data, at, kind, depth)
        elif kind in (_TRUE, _FALSE):
            found[number] = kind == _TRUE
        else:
            found[number], at = _value(data, at, kind, wanted[number], depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, wanted: Wanted | None, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _zigzag(data, at)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return data[at : at + length], _within(data, at + length)
    if kind == _STRUCT:
        return _struct(data, at, wanted or {}, depth + 1)
    if kind in (_LIST, _SET) and data[at] & 15 not in (_TRUE, _FALSE):
        item, count, at = _list_head(data, at)
        values = []
        for _ in range(count):
            value, at = _value(data, at, item, wanted, depth + 1)
            values.append(value)
        return values, at
    return None, _skip(data, at, kind, depth)


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    if kind in _INTEGERS:
        while data[at] > 0x7F:
            at += 1
        return at + 1
    if kind == _BINARY:
        length, at = _varint(data, at)
        return _within(data, at + length)
    if kind in (_TRUE, _FALSE):
        return at
    if kind in _FIXED_BYTES:
        return _within(data, at + _FIXED_BYTES[kind])
    if kind == _STRUCT:
        return _struct(data, at, {}, depth + 1)[1]
    if kind in (_LIST, _SET):
        item, count, at = _list_head(data, at)
        return _skip_items(data, at, (item,), count, depth)
    if kind == _MAP:
        count, at = _varint(data, at)
        kinds = data[at] if count else 0
        return _skip_items(data, at + bool(count), (kinds >> 4, kinds & 15), count, depth)
    raise CorruptError("parquet: footer is malformed", expected="a known kind of field", got=str(kind))


def _skip_items(data: bytes, at: int, kinds: tuple[int, ...], count: int, depth: int) -> int:
    if depth > _DEPTH_MAX:
        raise CorruptError("parquet: footer is nested too deeply")
    # Every item takes a byte at least, a truth value too, so a lying count ends at the end of the data.
    for _ in range(count):
        for kind in kinds:
            at = _within(data, at + 1) if kind in (_TRUE, _FALSE) else _skip(data, at, kind, depth + 1)
    return at


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    head = data[at]
    if head >> 4 < 15:
        return head & 15, head >> 4, at + 1
    count, at = _varint(data, at + 1)
    return head & 15, count, at


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise CorruptError("parquet: footer is cut off", expected=f"{at} bytes", got=str(len(data)))
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    while shift < _VARINT_BITS_MAX:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise CorruptError("parquet: footer holds a malformed number")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
