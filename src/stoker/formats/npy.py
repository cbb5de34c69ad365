"""NPY: one array whose last axis is the sample; payload plus 128 bytes."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError
from stoker.formats.api import Block, ContentSource, DecodedMany, Extent, Int64s, Layout, RangeSource, SampleSpec
from stoker.formats.arrays import PREFIX_BYTES_MAX, build_header, header_span, read_header, view_array
from stoker.formats.base import Expectation, FormatBase, as_bytes, extent_bytes, gather, hold_against, told_by
from stoker.formats.many import extents_in
from stoker.formats.many_arrays import decode_arrays
from stoker.formats.npz import count_last_axis, samples_first, samples_last
from stoker.kernels.unpacking import npy_locate


class Npy(FormatBase):
    """No options of its own."""

    name = "npy"
    extension = "npy"

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield header and array; the samples are held in memory once, as their axis comes last in the file."""
        spec = self.check_spec(spec)
        header = build_header((*spec.shape, spec.samples), np.dtype(spec.dtype))
        return gather(piece for piece in (header, as_bytes(samples_last(spec, content))))

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return the last side of the array, from the header."""
        if source.size_bytes < PREFIX_BYTES_MAX:
            raise CorruptError("npy file is cut off", got=f"{source.size_bytes} bytes")
        start, length = header_span(source.read(0, PREFIX_BYTES_MAX))
        return count_last_axis(read_header(source.read(0, min(start + length, source.size_bytes))), source.size_bytes)

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x, samples first, as a view."""
        array = samples_first(view_array(extent_bytes(data, extent)))
        hold_against(array, extent, told_by(layout), "npy")
        return Block({"x": array}, primary="x", samples=extent.samples, copied_bytes=0)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: views, found by their headers alone."""
        extents = extents_in(data, starts, lengths, samples, context)
        return decode_arrays(self, extents, npy_locate(data, extents.starts, extents.lengths))


FORMAT: Final = Npy()
