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
_LANES: Final = 8


class Input:
    """One input of a recompute: its bytes, read-only and good for this call, and what changed since the last time."""

    __slots__ = ("_ranges", "data", "page")

    def __init__(self, page: int, data: Bytes, ranges: Callable[[], Ranges | None] | None = None) -> None:
        self.page = page
        self.data = data
        self.data.flags.writeable = False
        self._ranges = ranges

    def view(self, dtype: Any) -> NDArray[Any]:
        """Return the bytes as elements."""
        return self.data.view(dtype)

    @property
    def changed(self) -> Ranges | None:
        """(offset, length) ranges outside of which nothing changed since this page was last made; None: unknown.

        They come from the deltas in the log: work can be proportional to what changed.
        """
        return self._ranges() if self._ranges else None


Function = Callable[..., "NDArray[Any] | bytes | None"]
"""Called as function(inputs, out): `out` is a writable copy of the page, to change in place; or it returns bytes.

All arrays belong to the engine: copy what outlives the call.
"""


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


def add_up(parts: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return the sum of all elements, shape (1,), by a rule that leaves nothing open.

    Integers are added modulo 2^64. Floats are added as float64 in eight lanes, element i of an input in lane i mod 8;
    then the lanes, then the inputs, in order. There is one NaN and one zero: which of several would come out, nobody
    promises.
    """
    if kind.kind not in "f":
        wide = np.dtype(np.uint64 if kind.kind in "ub" else np.int64)
        totals = [np.add.reduce(part, dtype=wide) for part in parts]
        return np.asarray(np.array(totals, wide).sum(dtype=wide, keepdims=True).astype(kind))
    total = np.zeros(1)
    for part in parts:
        rows = np.zeros((1 + -(-part.size // _LANES), _LANES))
        rows[1:].reshape(-1)[: part.size] = part
        lanes = rows.cumsum(axis=0)[-1]
        total = total + np.concatenate([np.zeros(1), lanes]).cumsum()[-1:]
    return _quiet(total.astype(kind))


def _extreme(largest: bool) -> Callable[[Sequence[NDArray[Any]], "np.dtype[Any]"], NDArray[Any]]:
    def found(parts: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> NDArray[Any]:
        whole = np.concatenate(list(parts))
        return _quiet((np.max if largest else np.min)(whole, keepdims=True).astype(kind))

    return found


def _quiet(value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype.kind != "f":
        return value
    made = np.where(np.isnan(value), value.dtype.type(np.nan), value + value.dtype.type(0))
    return np.asarray(made, value.dtype)


def _reduction(reduce: Callable[[Sequence[NDArray[Any]], "np.dtype[Any]"], NDArray[Any]]) -> Function:
    def function(inputs: Sequence[Input], out: Bytes, *, dtype: str) -> Bytes:
        kind = np.dtype(dtype)
        with np.errstate(all="ignore"):
            made = reduce([one.data.view(kind) for one in inputs], kind)
        out[: kind.itemsize] = made.reshape(1).view(np.uint8)
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
    "sum": _reduction(add_up),
    "max": _reduction(_extreme(True)),
    "min": _reduction(_extreme(False)),
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
