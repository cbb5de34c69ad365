"""The `.npy` array: header written by NumPy, header read without evaluating anything.

Source of the format: NumPy's NEP 1, versions 1.0 to 3.0.
"""

import io
import math
import re
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import CorruptError
from stoker.core.units import KiB
from stoker.formats.api import Array

MAGIC: Final = b"\x93NUMPY"
HEADER_BYTES_MAX: Final = 64 * KiB
PREFIX_BYTES_MAX: Final = 12
_DIMENSIONS_MAX: Final = 64
_BYTES_MAX: Final = 1 << 62

_DTYPE: Final = re.compile(r"[<>|=]?[biufcSUVmM]\d{0,9}(\[\d{0,9}[A-Za-z]{1,3}\])?|[<>|=]?\?")
_SIDES: Final = re.compile(r"\(\s*(?:\d{1,19}L?\s*,\s*)*(?:\d{1,19}L?\s*)?\)")
_PAIR: Final = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>descr|fortran_order|shape)(?P=quote)\s*:\s*"""
    r"""(?P<value>'[^'\\]*'|"[^"\\]*"|True|False|\([^()]*\))\s*(?P<end>,\s*\}|,|\})"""
)


class ArrayHeader(msgspec.Struct, frozen=True):
    """What a `.npy` header says: the array lies `header_bytes` into the file and is `data_bytes` long."""

    shape: tuple[int, ...]
    dtype: Any
    fortran_order: bool
    header_bytes: int

    @property
    def data_bytes(self) -> int:
        """Return the bytes of the array itself."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


def build_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the version 1.0 header of a C-ordered array: 128 bytes for all but very long shapes."""
    out = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, facts)
    return out.getvalue()


def read_header(data: memoryview) -> ArrayHeader:
    """Return the header at the start of `data`, which needs to hold no more than the header.

    Raises CorruptError for a malformed header, an object or structured dtype, or an absurd shape.
    """
    start, length = header_span(data)
    if len(data) < start + length:
        raise CorruptError("npy header is cut off", expected=f"{start + length} bytes", got=str(len(data)))
    shape, dtype, fortran_order = _parse(bytes(data[start : start + length]))
    return ArrayHeader(shape, dtype, fortran_order, start + length)


def header_span(data: memoryview) -> tuple[int, int]:
    """Return where the header text starts and how long it is, from the file's first 12 bytes. Raises CorruptError."""
    if len(data) < PREFIX_BYTES_MAX or bytes(data[:6]) != MAGIC:
        raise CorruptError("not an npy array", expected=repr(MAGIC), got=repr(bytes(data[:6])))
    major, minor = data[6], data[7]
    if major not in (1, 2, 3) or minor != 0:
        raise CorruptError("npy version is not known", expected="1.0, 2.0 or 3.0", got=f"{major}.{minor}")
    width = 2 if major == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    if length > HEADER_BYTES_MAX:
        raise CorruptError("npy header is too long", expected=f"at most {HEADER_BYTES_MAX} bytes", got=str(length))
    return 8 + width, length


def view_array(data: memoryview) -> Array:
    """Return the array that fills `data` exactly, as a view of it. Raises CorruptError for anything else."""
    header = read_header(data)
    held_bytes = len(data) - header.header_bytes
    if header.data_bytes != held_bytes:
        raise CorruptError(
            "npy array and its header disagree", expected=f"{header.data_bytes} bytes", got=f"{held_bytes} bytes"
        )
    flat = np.frombuffer(data, header.dtype, offset=header.header_bytes)
    if header.fortran_order:
        return flat.reshape(header.shape[::-1]).transpose()
    return flat.reshape(header.shape)


@lru_cache(maxsize=64)
def _parse(text: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    pairs = _pairs(text)
    shape = _shape(pairs["shape"])
    dtype = _dtype(pairs["descr"])
    order = pairs["fortran_order"]
    if order not in ("True", "False"):
        raise CorruptError("npy header is malformed", expected="fortran_order True or False", got=order[:40])
    # NumPy multiplies the sides in 64 bits even when one of them is zero.
    if math.prod(side or 1 for side in shape) * dtype.itemsize > _BYTES_MAX:
        raise CorruptError("npy shape is absurd", got=str(shape)[:200])
    return shape, dtype, order == "True"


def _pairs(text: bytes) -> dict[str, str]:
    """Split `{'descr': …, 'fortran_order': …, 'shape': …}` without evaluating it."""
    try:
        words = text.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise CorruptError("npy header is not text") from error
    pairs: dict[str, str] = {}
    position = 1 if words.startswith("{") else len(words) + 1
    while position < len(words):
        pair = _PAIR.match(words, position)
        if pair is None or pair["key"] in pairs:
            break
        pairs[pair["key"]] = pair["value"]
        position = pair.end()
        if pair["end"].endswith("}"):
            break
    if len(pairs) != 3 or position != len(words):
        raise CorruptError(
            "npy header is malformed", expected="a plain descr, fortran_order and shape", got=repr(words[:120])
        )
    return pairs


def _shape(text: str) -> tuple[int, ...]:
    if not _SIDES.fullmatch(text):
        raise CorruptError("npy shape is malformed", expected="a tuple of whole numbers", got=text[:120])
    sides = tuple(int(side.strip().rstrip("L")) for side in text[1:-1].split(",") if side.strip())
    if len(sides) > _DIMENSIONS_MAX:
        raise CorruptError("npy shape has too many sides", expected=f"at most {_DIMENSIONS_MAX}", got=str(len(sides)))
    return sides


def _dtype(text: str) -> np.dtype[Any]:
    name = text[1:-1]
    if not _DTYPE.fullmatch(name):
        raise CorruptError("npy element type is refused", expected="plain numbers or text", got=repr(name[:60]))
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, OverflowError) as error:
        raise CorruptError("npy element type is not known", got=repr(name[:60])) from error
    if dtype.hasobject or dtype.itemsize == 0:
        raise CorruptError("npy element type is refused", expected="elements of a fixed size", got=repr(name[:60]))
    return dtype
