"""Many extents decoded at once: what the formats that offer it share.

Kernels tell where the samples lie. Where those are equal and equally far apart, one array is laid over all of them
and taken apart, which costs a fifth of a microsecond a sample; else each gets an array of its own. Extents that are
in any way unusual go through the format's `decode`, one by one, which knows every form and finds the words for errors.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Array, Block, CorruptExtentError, DecodedMany, Extent, Format, Int64s, Layout
from stoker.formats.base import Expectation, told_by

_RUN_MIN: Final = 3
"""Fewer samples than this in a run are quicker made one by one."""


class Extents(msgspec.Struct, frozen=True):
    """Extents of one range each, lying in a flat buffer, all with the same context."""

    data: NDArray[np.uint8]
    starts: Int64s
    lengths: Int64s
    samples: Int64s
    context: Any

    @property
    def told(self) -> Expectation:
        """Return what the layouts' maker was told."""
        return told_by(Layout((), self.context))


def extents_in(
    data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
) -> Extents:
    """Return the extents with their columns in one form. Raises UsageError when one does not lie in `data`."""
    starts, lengths = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(lengths, np.int64)
    counts = np.broadcast_to(np.asarray(samples, np.int64), starts.shape)
    if (
        data.ndim != 1
        or data.dtype != np.uint8
        or not data.flags.c_contiguous
        or starts.ndim != 1
        or starts.shape != lengths.shape
    ):
        raise UsageError("extents are told in a wrong form", got=f"{data.dtype} {starts.shape} {lengths.shape}")
    outside = (starts < 0) | (lengths < 0) | (lengths > len(data)) | (starts > len(data) - lengths)
    if outside.any():
        raise UsageError("an extent does not lie in its buffer", where=str(int(outside.argmax())))
    return Extents(data, starts, lengths, counts, context)


def decode_one_of(made: Format, extents: Extents, number: int) -> Block:
    """Return one extent's block. Raises CorruptExtentError with its number."""
    start, length = int(extents.starts[number]), int(extents.lengths[number])
    extent = Extent(((0, length),), 0, int(extents.samples[number]))
    try:
        view = extents.data.data[start : start + length]
        return made.decode(view, extent, Layout((extent,), extents.context))
    except CorruptError as error:
        raise numbered(error, number) from error


def numbered(error: CorruptError, number: int) -> CorruptExtentError:
    """Return the error with the number of the extent it is about."""
    told = CorruptExtentError(
        error.what, where=error.where, expected=error.expected, got=error.got, remedy=error.remedy
    )
    told.number = number
    return told


def decode_each(made: Format, extents: Extents) -> DecodedMany:
    """Decode one after the other: right for every format and file, and quick for none.

    Raises CorruptExtentError for the first extent that is corrupt.
    """
    return join_blocks([decode_one_of(made, extents, number) for number in range(len(extents.starts))])


def join_blocks(blocks: Sequence[Block]) -> DecodedMany:
    """Return the blocks' samples one after the other, with the columns that all of them have."""
    samples = [block.sample(index) for block in blocks for index in range(block.samples)]
    names = [name for name in blocks[0].columns if all(name in block.columns for block in blocks)] if blocks else []
    return DecodedMany(
        samples,
        {name: partial(_column_of, blocks, name) for name in names},
        payload_bytes=sum(sample.nbytes for sample in samples),
        row_bytes=sum(block_bytes(block) for block in blocks),
        copied_bytes=sum(block.copied_bytes for block in blocks),
    )


def _column_of(blocks: Sequence[Block], name: str) -> list[Array]:
    return [block.columns[name][index] for block in blocks for index in range(block.samples)]


def block_bytes(block: Block) -> int:
    """Return the bytes of all columns of a block."""
    return sum(
        values.nbytes if isinstance(values, np.ndarray) else sum(value.nbytes for value in values)
        for values in block.columns.values()
    )


class Form(msgspec.Struct, frozen=True):
    """How one sample lies in memory: `strides` in bytes, None when its elements stand back to back in C order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None = None

    @property
    def packed_strides(self) -> tuple[int, ...]:
        """Return the strides, worked out where they are not told."""
        if self.strides is not None:
            return self.strides
        strides = [self.dtype.itemsize]
        for side in self.shape[:0:-1]:
            strides.append(strides[-1] * side)
        return tuple(reversed(strides)) if self.shape else ()


def views(data: NDArray[np.uint8], places: Int64s, form: Form) -> list[Array]:
    """Return arrays of the same form that lie at `places`, byte offsets in `data`. NumPy checks that they do.

    The places are cut into runs of equal steps; the first step is taken for the usual one.
    """
    if len(places) < _RUN_MIN:
        return _singles(data, places, form)
    steps = places[1:] - places[:-1]
    step = int(steps[0])
    breaks = np.flatnonzero(steps != step) + 1
    if len(breaks) == 0 and step > 0:
        return _run(data, int(places[0]), len(places), step, form)
    if step <= 0 or len(breaks) * _RUN_MIN > len(places):
        return _singles(data, places, form)
    samples: list[Array] = []
    borders = breaks.tolist()
    for first, last in zip([0, *borders], [*borders, len(places)], strict=True):
        if last - first < _RUN_MIN:
            samples += _singles(data, places[first:last], form)
        else:
            samples += _run(data, int(places[first]), last - first, step, form)
    return samples


def _run(data: NDArray[np.uint8], place: int, count: int, step: int, form: Form) -> list[Array]:
    return list(np.ndarray((count, *form.shape), form.dtype, data, place, (step, *form.packed_strides)))


def _singles(data: NDArray[np.uint8], places: Int64s, form: Form) -> list[Array]:
    shape, dtype, strides = form.shape, form.dtype, form.strides
    return [np.ndarray(shape, dtype, data, place, strides) for place in places.tolist()]
