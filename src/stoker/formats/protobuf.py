"""The few lines of protocol buffers that a `tf.train.Example` needs.

Example { Features features = 1; }   Features { map<string, Feature> feature = 1; }
Feature { BytesList 1 | FloatList 2 | Int64List 3 }   each list: repeated value = 1
Source: the protocol buffers encoding guide, and TensorFlow's example.proto and feature.proto.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from stoker.core.errors import CorruptError

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_FIXED_BYTES: Final = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX: Final = 10

Field = tuple[int, int | memoryview]


def varint(value: int) -> bytes:
    """Return a non-negative number in base 128, low digits first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=256)
def example_frame(image_bytes: int) -> tuple[bytes, bytes]:
    """Return what stands before and after an image of this size in its Example: features `image`, then `size`."""
    size = _feature(b"size", b"\x1a" + _prefixed(b"\x0a" + _prefixed(varint(image_bytes))))
    head = b""
    length = image_bytes
    # From the inside out: BytesList.value, Feature.bytes_list, entry.value; then entry.key and Features.feature.
    for tag in (b"\x0a", b"\x0a", b"\x12"):
        lead = tag + varint(length)
        head = lead + head
        length += len(lead)
    key = b"\x0a" + _prefixed(b"image")
    entry = b"\x0a" + varint(length + len(key)) + key
    return b"\x0a" + varint(length + len(entry) + len(size)) + entry + head, size


@lru_cache(maxsize=256)
def image_bytes_of(example_bytes: int) -> int:
    """Return the image size whose Example, written by us, has this length; -1 when there is none."""
    # Length grows with the image by one byte or a few: starting from a low guess, some steps up decide.
    guess = max(0, example_bytes - _around(example_bytes))
    for image_bytes in range(guess, example_bytes):
        length = image_bytes + _around(image_bytes)
        if length >= example_bytes:
            return image_bytes if length == example_bytes else -1
    return -1


def parse_example(data: memoryview) -> tuple[memoryview, int | None]:
    """Return the `image` bytes, as a view, and the `size` number if there is one. Raises CorruptError."""
    image: memoryview | None = None
    size: int | None = None
    for features in _messages(data, 1):
        for entry in _messages(features, 1):
            key, value = _map_entry(entry)
            if key == b"image":
                image = _only_bytes(value)
            elif key == b"size":
                size = _only_number(value)
    if image is None:
        raise CorruptError("example has no feature", expected="bytes feature 'image'", got=f"{len(data)} bytes")
    return image, size


def _around(image_bytes: int) -> int:
    head, tail = example_frame(image_bytes)
    return len(head) + len(tail)


def _feature(key: bytes, value: bytes) -> bytes:
    return b"\x0a" + _prefixed(b"\x0a" + _prefixed(key) + b"\x12" + _prefixed(value))


def _prefixed(data: bytes) -> bytes:
    return varint(len(data)) + data


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """Yield every length-delimited field with this number; skip all others."""
    for found, value in _fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def _map_entry(entry: memoryview) -> tuple[bytes, memoryview]:
    key, value = b"", memoryview(b"")
    for number, content in _fields(entry):
        if number == 1 and isinstance(content, memoryview):
            key = bytes(content[:64])
        elif number == 2 and isinstance(content, memoryview):
            value = content
    return key, value


def _only_bytes(feature: memoryview) -> memoryview:
    """Return the single value of a bytes list."""
    values = [value for items in _messages(feature, 1) for value in _messages(items, 1)]
    if len(values) != 1:
        raise CorruptError("example feature 'image' is malformed", expected="one bytes value", got=f"{len(values)}")
    return values[0]


def _only_number(feature: memoryview) -> int:
    """Return the single value of an int64 list, packed or not."""
    values: list[int] = []
    for items in _messages(feature, 3):
        for number, value in _fields(items):
            if number != 1:
                continue
            if isinstance(value, int):
                values.append(value)
                continue
            at = 0
            while at < len(value) and len(values) < 2:
                one, at = _read_varint(value, at)
                values.append(one)
    if len(values) != 1:
        raise CorruptError("example feature 'size' is malformed", expected="one number", got=f"{len(values)}")
    return values[0]


def _fields(data: memoryview) -> Iterator[Field]:
    """Yield (number, value) of a message: numbers for varints, views for the rest. Raises CorruptError."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise CorruptError("example is malformed", expected="a known wire type", got=str(kind))
        if at + length > len(data):
            raise CorruptError("example is cut off", expected=f"{at + length} bytes", got=f"{len(data)}")
        yield number, data[at : at + length]
        at += length


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise CorruptError("example holds a malformed number", got=f"at byte {at} of {len(data)}")
