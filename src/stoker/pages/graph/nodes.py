"""How a page is made from others: functions of arrays, ours by name and the user's by registration.

A function sees its declared inputs and nothing else: no clock, no files, no other pages. Then a page is always the same
for the same inputs, and replay, restart and order cannot matter.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from stoker.core.errors import UsageError

Bytes = NDArray[np.uint8]
Ranges = tuple[tuple[int, int], ...]


class Input:
    """One input of a recompute: its bytes, read-only, and what changed since the last time.

    changed  (offset, length) ranges, None where all may have
    """

    __slots__ = ("_before", "_ranges", "data", "page")

    def __init__(self, page: int, data: Bytes, before: Bytes | None) -> None:
        self.page = page
        self.data = data
        self.data.flags.writeable = False
        self._before = before
        self._ranges: Ranges | None = None

    def view(self, dtype: Any) -> NDArray[Any]:
        """Return the bytes as elements."""
        return self.data.view(dtype)

    @property
    def changed(self) -> Ranges | None:
        """What changed since the last time this page was made; None where that is not known."""
        if self._before is None or self._before.size != self.data.size:
            return None
        if self._ranges is None:
            from stoker.pages.history.diff import changed_ranges

            self._ranges = changed_ranges(np.flatnonzero(self._before != self.data))
        return self._ranges


Function = Callable[..., "NDArray[Any] | bytes | None"]
"""Called as function(inputs, out): `out` is a writable copy of the page, to change in place; or it returns bytes."""


def passthrough(inputs: Sequence[Input], out: Bytes, *, offset: int = 0) -> Bytes:
    """Copy the first input from an offset on, as much as the page holds."""
    part = inputs[0].data[offset : offset + out.size]
    out[: part.size] = part
    return out


def cast(inputs: Sequence[Input], out: Bytes, *, source: str, target: str) -> Bytes:
    """Convert the first input's elements; `bfloat16` is rounded to nearest, ties to even."""
    values = inputs[0].data.view(np.dtype(source))
    made = to_bfloat16(values) if target == "bfloat16" else values.astype(np.dtype(target))
    out[:] = made.view(np.uint8)
    return out


def to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return float32 values as the 16 bits of bfloat16, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _reduction(reduce: Callable[..., Any]) -> Function:
    def function(inputs: Sequence[Input], out: Bytes, *, dtype: str) -> Bytes:
        kind = np.dtype(dtype)
        parts = [reduce(one.data.view(kind)) for one in inputs]
        out[: kind.itemsize] = np.array(reduce(np.array(parts, kind)), kind).reshape(1).view(np.uint8)
        return out

    return function


def count_nonzero(inputs: Sequence[Input], out: Bytes, *, dtype: str) -> Bytes:
    """Count the elements that are not zero, into one uint64."""
    total = sum(int(np.count_nonzero(one.data.view(np.dtype(dtype)))) for one in inputs)
    out[:8] = np.array([total], np.uint64).view(np.uint8)
    return out


def concat(inputs: Sequence[Input], out: Bytes) -> Bytes:
    """Put all inputs one behind the other."""
    start = 0
    for one in inputs:
        part = one.data[: out.size - start]
        out[start : start + part.size] = part
        start += part.size
    return out


def hash_of(inputs: Sequence[Input], out: Bytes) -> Bytes:
    """Put the XXH3-128 of all inputs, one behind the other, into 16 bytes."""
    whole = xxhash.xxh3_128()
    for one in inputs:
        whole.update(one.data.data)
    out[:16] = np.frombuffer(whole.digest(), np.uint8)
    return out


BUILT_IN: Final[dict[str, Function]] = {
    "passthrough": passthrough,
    "cast": cast,
    "sum": _reduction(np.sum),
    "max": _reduction(np.max),
    "min": _reduction(np.min),
    "count": count_nonzero,
    "concat": concat,
    "hash": hash_of,
}
"""Functions that every process knows by name, so that they run again after a restart without registration."""


class Derivation(msgspec.Struct, frozen=True):
    """How a page is made: a name and parameters, never code.

    digest  of the user's function when it was registered; another one means that the page is out of date
    """

    page: int
    inputs: list[int]
    function: str
    digest: str = ""
    parameters: dict[str, int | str] = {}
    lazy: bool = False


def checked_output(made: NDArray[Any] | bytes | None, out: Bytes, page: int) -> Bytes:
    """Return the page's new bytes: what was returned, or `out` as changed. Raises UsageError for another size."""
    if made is None:
        return out
    found = np.frombuffer(made, np.uint8) if isinstance(made, bytes) else np.ascontiguousarray(made).reshape(-1)
    found = found.view(np.uint8)
    if found.size != out.size:
        raise UsageError(
            "recompute made another size", where=f"page {page}", expected=f"{out.size} bytes", got=f"{found.size}"
        )
    return found
