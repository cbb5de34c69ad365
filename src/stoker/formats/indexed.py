"""Indexed binary: samples back to back, with two companions that tell offset and size of each.

`<file>.off.idx` and `<file>.sz.idx` hold one native 64-bit unsigned number a sample. DLIO's files are read too, but
not its defects: offsets that restart at zero, as its buffered writer leaves them, are refused as corrupt; ours
run on. Without companions the file is read as raw. The `mmap` variant differs in name alone: how a file is
mapped is the store's affair.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.formats.api import (
    Array,
    Block,
    ContentSource,
    DecodedMany,
    Extent,
    Int64s,
    Layout,
    RangeSource,
    SampleSpec,
)
from stoker.formats.base import (
    FormatBase,
    as_bytes,
    extent_bytes,
    gather,
    take,
    told_by,
    view_samples,
)
from stoker.formats.columns import ColumnLayout, column_layout, equal_samples
from stoker.formats.many import extents_in
from stoker.formats.many_records import decode_packed

OFFSET_SUFFIX: Final = ".off.idx"
SIZE_SUFFIX: Final = ".sz.idx"
_NUMBER: Final = np.dtype("uint64")


class IndexedBinary(FormatBase):
    """No options of its own."""

    whole_file = False

    def __init__(self, name: str) -> None:
        self.name = self.extension = name

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the samples, one in memory at a time."""
        spec = self.check_spec(spec)
        return gather(as_bytes(take(content, index, spec)) for index in range(spec.samples))

    def side_files(self, spec: SampleSpec) -> dict[str, bytes]:
        """Return offsets and sizes under `.off.idx` and `.sz.idx`."""
        spec = self.check_spec(spec)
        offsets = np.arange(spec.samples, dtype=_NUMBER) * np.uint64(spec.sample_bytes)
        sizes = np.full(spec.samples, spec.sample_bytes, _NUMBER)
        return {OFFSET_SUFFIX: offsets.tobytes(), SIZE_SUFFIX: sizes.tobytes()}

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent a sample, from the companions; by arithmetic when both are absent.

        Raises CorruptError when the companions contradict each other, the file's size or the options.
        """
        return self.layout_columns(source, options).layout()

    def layout_columns(self, source: RangeSource, options: Mapping[str, Any]) -> ColumnLayout:
        """See `LaysOutColumns`."""
        told = self.expectation(options)
        offsets, sizes = source.side_file(OFFSET_SUFFIX), source.side_file(SIZE_SUFFIX)
        if offsets is None and sizes is None:
            return equal_samples(self.name, source.size_bytes, told)
        spans = self._spans(_numbers(offsets, OFFSET_SUFFIX), _numbers(sizes, SIZE_SUFFIX), source.size_bytes)
        if told.samples not in (None, len(spans[0])):
            got = f"{len(spans[0])}"
            raise CorruptError(f"{self.name}: wrong number of samples", expected=f"{told.samples}", got=got)
        equal = bool((spans[1] == spans[1][:1]).all())
        return column_layout(*spans, told, joinable=equal)

    def _spans(self, offsets: Array, sizes: Array, size_bytes: int) -> tuple[Int64s, Int64s]:
        """Return the columns as signed numbers. Raises CorruptError unless they ascend and lie in the file."""
        if len(offsets) != len(sizes):
            raise CorruptError(f"{self.name}: companions differ in length", got=f"{len(offsets)} and {len(sizes)}")
        # Both are at most the file's size, so that no sum of them goes beyond 64 bits.
        limit = np.uint64(size_bytes)
        beyond = (offsets > limit) | (sizes > limit)
        if beyond.any():
            which = int(beyond.argmax())
            got = f"{offsets[which]} + {sizes[which]}"
            raise CorruptError(f"{self.name}: index runs over the file", expected=f"<= {size_bytes}", got=got)
        starts, lengths = offsets.astype(np.int64), sizes.astype(np.int64)
        ends = starts + lengths
        back = starts[1:] < ends[:-1]
        if back.any():
            which = int(back.argmax())
            got = str(starts[which + 1])
            raise CorruptError(f"{self.name}: offsets do not ascend", expected=f">= {ends[which]}", got=got)
        if (lengths < 1).any():
            raise CorruptError(f"{self.name}: index tells an empty sample", got=f"number {int(lengths.argmin())}")
        if len(ends) and ends[-1] > size_bytes:
            got = str(ends[-1])
            raise CorruptError(f"{self.name}: index runs over the file", expected=f"<= {size_bytes}", got=got)
        return starts, lengths

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x as a view; an extent of several samples must hold equal ones."""
        array = view_samples(extent_bytes(data, extent), extent.samples, told_by(layout), self.name)
        return Block({"x": array}, primary="x", samples=extent.samples, copied_bytes=0)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: views, by arithmetic alone."""
        return decode_packed(self, extents_in(data, starts, lengths, samples, context))


def _numbers(data: memoryview | None, suffix: str) -> Array:
    if data is None or len(data) % _NUMBER.itemsize:
        got = "nothing" if data is None else f"{len(data)} bytes"
        raise CorruptError("indexed binary: companion is malformed", where=suffix, expected="8 bytes a sample", got=got)
    return np.frombuffer(data, _NUMBER)


INDEXED: Final = IndexedBinary("indexed_binary")
MMAP_INDEXED: Final = IndexedBinary("mmap_indexed_binary")
