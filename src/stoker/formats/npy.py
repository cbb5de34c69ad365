"""NPY: one array whose last axis is the sample; payload plus 128 bytes."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from stoker.core.errors import CorruptError
from stoker.formats.api import Block, ContentSource, Extent, Layout, RangeSource, SampleSpec
from stoker.formats.arrays import PREFIX_BYTES_MAX, build_header, header_span, read_header, view_array
from stoker.formats.base import Expectation, FormatBase, as_bytes, extent_bytes, gather, hold_against, told_by
from stoker.formats.npz import count_last_axis, samples_first, samples_last


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


FORMAT: Final = Npy()
