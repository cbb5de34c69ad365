"""Canonical bytes of plain values: equal values give equal bytes in every process, and nothing read is ever run.

A value is one byte of tag and its body; lengths and counts are u32, little-endian:

| tag | value | body |
|---|---|---|
| `N` `T` `F` `E` | None, True, False, Ellipsis | none |
| `i` | int | length, two's complement, no byte more than needed |
| `d` | float | 8 bytes IEEE 754 (every NaN and both zeros are kept) |
| `c` | complex | two floats |
| `s` `b` | str (UTF-8, lone surrogates kept), bytes | length, bytes |
| `t` `l` | tuple, list | count, values |
| `m` | dict with str keys | count, then key as `s` and value, ordered by the bytes of the key, no key twice |
| `R` | Record | its kind as `s`, its fields as `m` |
"""

import struct
from typing import Any, Final

import msgspec

from stoker.core.errors import UsageError
from stoker.pages.errors import FormatError

DEPTH_MAX: Final = 120
_U32: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")
_SINGLES: Final = {b"N": None, b"T": True, b"F": False, b"E": ...}
_SINGLE_TAGS: Final = ((None, b"N"), (True, b"T"), (False, b"F"), (Ellipsis, b"E"))


class Record(msgspec.Struct, frozen=True):
    """A thing described by plain values: a function, a graph, a tensor. `fields` by name."""

    kind: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Return a field; raises KeyError."""
        return self.fields[name]


def pack(value: Any) -> bytes:
    """Return the canonical bytes of a plain value. Raises UsageError for another type, or nested over 120 deep."""
    out = bytearray()
    _put(value, out, 0)
    return bytes(out)


def unpack(data: bytes | memoryview) -> Any:
    """Return the value of canonical bytes; `pack` of it gives them again. Raises FormatError for any others."""
    reader = _Reader(memoryview(data).toreadonly())
    value = reader.value(0)
    if reader.at != len(reader.data):
        raise FormatError("canonical bytes go on behind their value", got=f"{len(reader.data) - reader.at} bytes more")
    return value


def _put(value: Any, out: bytearray, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise UsageError("value is nested too deep for canonical bytes", expected=f"at most {DEPTH_MAX}")
    for single, tag in _SINGLE_TAGS:
        if value is single:
            out += tag
            return
    kind = type(value)
    if kind is str:
        _put_sized(b"s", value.encode("utf-8", "surrogatepass"), out)
    elif kind is bytes:
        _put_sized(b"b", value, out)
    elif kind is int:
        _put_sized(b"i", value.to_bytes(_int_bytes(value), "little", signed=True), out)
    elif kind is float:
        out += b"d" + _DOUBLE.pack(value)
    elif kind is complex:
        out += b"c" + _DOUBLE.pack(value.real) + _DOUBLE.pack(value.imag)
    else:
        _put_many(value, out, depth)


def _put_many(value: Any, out: bytearray, depth: int) -> None:
    kind = type(value)
    if kind is tuple or kind is list:
        out += (b"t" if kind is tuple else b"l") + _U32.pack(len(value))
        for item in value:
            _put(item, out, depth + 1)
    elif kind is dict:
        _put_map(value, out, depth)
    elif kind is Record:
        out += b"R"
        _put(value.kind, out, depth + 1)
        _put(value.fields, out, depth + 1)
    else:
        raise UsageError("a value has no canonical bytes", got=f"{kind.__module__}.{kind.__qualname__}")


def _put_map(value: dict[Any, Any], out: bytearray, depth: int) -> None:
    if any(type(key) is not str for key in value):
        raise UsageError("a map with other keys than text has no canonical bytes")
    out += b"m" + _U32.pack(len(value))
    for key, name in sorted((key.encode("utf-8", "surrogatepass"), key) for key in value):
        _put_sized(b"s", key, out)
        _put(value[name], out, depth + 1)


def _put_sized(tag: bytes, body: bytes, out: bytearray) -> None:
    out += tag + _U32.pack(len(body)) + body


def _int_bytes(value: int) -> int:
    return (value if value >= 0 else ~value).bit_length() // 8 + 1


class _Reader:
    """Reads values from bytes; each length is held against what is left."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise FormatError("canonical bytes are nested too deep", expected=f"at most {DEPTH_MAX}")
        tag = bytes(self._take(1))
        if tag in _SINGLES:
            return _SINGLES[tag]
        if tag == b"d":
            return _DOUBLE.unpack(self._take(8))[0]
        if tag == b"c":
            return complex(_DOUBLE.unpack(self._take(8))[0], _DOUBLE.unpack(self._take(8))[0])
        if tag == b"i":
            return self._int(bytes(self._take(self._u32())))
        if tag == b"b":
            return bytes(self._take(self._u32()))
        if tag == b"s":
            return self._text()
        return self._many(tag, depth)

    def _many(self, tag: bytes, depth: int) -> Any:
        if tag in (b"t", b"l"):
            items = [self.value(depth + 1) for _ in range(self._count())]
            return tuple(items) if tag == b"t" else items
        if tag == b"m":
            return self._map(depth)
        if tag == b"R":
            kind, fields = self.value(depth + 1), self.value(depth + 1)
            if type(kind) is not str or type(fields) is not dict:
                raise FormatError("canonical record without a kind or fields")
            return Record(kind, fields)
        raise FormatError("canonical bytes hold an unknown tag", got=repr(tag))

    def _map(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        before: bytes | None = None
        for _ in range(self._count()):
            if bytes(self._take(1)) != b"s":
                raise FormatError("key of a canonical map is no text")
            key = self._text()
            raw = key.encode("utf-8", "surrogatepass")
            if before is not None and raw <= before:
                raise FormatError("keys of a canonical map are not in order")
            before = raw
            found[key] = self.value(depth + 1)
        return found

    def _text(self) -> str:
        try:
            return bytes(self._take(self._u32())).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise FormatError("canonical text is not UTF-8") from error

    def _int(self, body: bytes) -> int:
        value = int.from_bytes(body, "little", signed=True)
        if len(body) != _int_bytes(value):
            raise FormatError("canonical number is longer than needed")
        return value

    def _count(self) -> int:
        """Return a count of values: each takes a byte at least, so a greater one is a lie."""
        count = self._u32()
        if count > len(self.data) - self.at:
            raise FormatError("canonical bytes are cut off", got=f"{count} values announced")
        return count

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _take(self, length: int) -> memoryview:
        if length > len(self.data) - self.at:
            raise FormatError("canonical bytes are cut off", expected=f"{length} bytes more")
        taken = self.data[self.at : self.at + length]
        self.at += length
        return taken
