"""Synthetic: a tiny text file with a number; every sample read from it is one constant array.

It measures everything but the data path: the file costs a request, the samples cost nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Block, ContentSource, Extent, Layout, RangeSource, SampleSpec
from stoker.formats.base import FormatBase, extent_bytes, told_by, whole_number

_DIGITS_MAX: Final = 20


class Synthetic(FormatBase):
    """Options: `number`, the file's own (0 by default). Reading needs `shape`; `dtype` is uint8 by default."""

    name = "synthetic"
    extension = "synthetic"
    whole_file = False
    lossless = False
    own_options = ("number",)

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options given. Raises UsageError for a number that is none."""
        given = super().checked_options(options)
        if "number" in given:
            whole_number("number", given["number"], low=0)
        return given

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the number. The content is not asked for: no sample is stored."""
        spec = self.check_spec(spec)
        return iter([memoryview(str(spec.options.get("number") or 0).encode())])

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent with the samples told (1 by default); nothing is read."""
        told = self.expectation(options)
        if told.shape is None:
            raise UsageError("synthetic files do not tell their samples", remedy="give the option shape")
        return Layout((Extent(((0, source.size_bytes),), 0, told.samples or 1),), told)

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the column x: the number modulo 100 in every element, one element of memory in all."""
        view = extent_bytes(data, extent)
        text = bytes(view[: _DIGITS_MAX + 1]).strip()
        if not text.isdigit() or len(view) > _DIGITS_MAX:
            raise CorruptError("synthetic file is malformed", expected="a whole number", got=repr(text[:40]))
        told = told_by(layout)
        constant = np.array(int(text) % 100).astype(told.dtype or "uint8")
        array = np.broadcast_to(constant, (extent.samples, *(told.shape or ())))
        return Block({"x": array}, primary="x", samples=extent.samples, copied_bytes=constant.nbytes)


FORMAT: Final = Synthetic()
