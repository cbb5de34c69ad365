"""Raw: equal samples back to back, and nothing else.

The file says nothing about itself: reading needs `shape` (and `dtype`, bytes by default), or `samples`.
Neighbouring extents may be read as one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.formats.api import Block, ContentSource, DecodedMany, Extent, Int64s, Layout, RangeSource, SampleSpec
from stoker.formats.base import (
    FormatBase,
    as_bytes,
    extent_bytes,
    gather,
    take,
    told_by,
    view_samples,
)
from stoker.formats.columns import ColumnLayout, equal_samples
from stoker.formats.many import extents_in
from stoker.formats.many_records import decode_packed


class Raw(FormatBase):
    """No options of its own."""

    name = "raw"
    extension = "raw"
    whole_file = False

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the samples, one in memory at a time."""
        spec = self.check_spec(spec)
        return gather(as_bytes(take(content, index, spec)) for index in range(spec.samples))

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent a sample, by arithmetic; nothing is read. Raises CorruptError when the size is odd."""
        return self.layout_columns(source, options).layout()

    def layout_columns(self, source: RangeSource, options: Mapping[str, Any]) -> ColumnLayout:
        """See `LaysOutColumns`."""
        return equal_samples(self.name, source.size_bytes, self.expectation(options))

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x as a view."""
        array = view_samples(extent_bytes(data, extent), extent.samples, told_by(layout), self.name)
        return Block({"x": array}, primary="x", samples=extent.samples, copied_bytes=0)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: views, by arithmetic alone."""
        return decode_packed(self, extents_in(data, starts, lengths, samples, context))


FORMAT: Final = Raw()
