"""Layouts of files with very many samples: columns of numbers, or arithmetic alone, instead of an object a sample."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Extent, Int64s, Layout, RangeSource, SampleSpec
from stoker.formats.base import Expectation


class ColumnLayout(msgspec.Struct, frozen=True):
    """Where a file's samples lie, each an extent of one range.

    offsets, lengths    int64, shape (samples,), in bytes; None where sample i lies at i times `sample_bytes`
    context, joinable   as in `Layout`
    """

    samples: int
    context: Any = None
    joinable: bool = False
    sample_bytes: int = 0
    offsets: Int64s | None = None
    lengths: Int64s | None = None

    @property
    def held_bytes(self) -> int:
        """Return the memory of the columns."""
        return sum(column.nbytes for column in (self.offsets, self.lengths) if column is not None)

    def spans(self, numbers: Int64s, joined: int = 1) -> tuple[Int64s, Int64s, Int64s]:
        """Return offset and length in bytes, and the samples, of the extents `numbers` of `joined` samples each.

        The last extent may have fewer. Joined extents make sense only where `joins(joined)`.
        """
        firsts = numbers * joined
        counts = np.minimum(joined, self.samples - firsts)
        if self.offsets is None or self.lengths is None:
            return firsts * self.sample_bytes, counts * self.sample_bytes, counts
        starts, lasts = self.offsets[firsts], firsts + counts - 1
        return starts, self.offsets[lasts] + self.lengths[lasts] - starts, counts

    def joins(self, joined: int) -> bool:
        """Tell whether every `joined` neighbours may be read and decoded as one: allowed, and touching."""
        if not self.joinable or self.offsets is None or self.lengths is None:
            return self.joinable
        gaps = np.flatnonzero(self.offsets[1:] != self.offsets[:-1] + self.lengths[:-1]) + 1
        return bool((gaps % joined == 0).all())

    def layout(self) -> Layout:
        """Return the same with an object a sample."""
        offsets, lengths, _ = self.spans(np.arange(self.samples))
        spans = zip(offsets.tolist(), lengths.tolist(), strict=True)
        extents = tuple(Extent((span,), number, 1) for number, span in enumerate(spans))
        return Layout(extents, self.context, self.joinable)


@runtime_checkable
class LaysOutColumns(Protocol):
    """What a format offers whose extents are one range of one sample each."""

    def layout_columns(self, source: RangeSource, options: Mapping[str, Any]) -> ColumnLayout:
        """Return what `layout` returns, as columns. Raises as it does."""


def column_layout(offsets: Int64s, lengths: Int64s, context: Any, *, joinable: bool) -> ColumnLayout:
    """Return the layout of samples that lie there; equal ones back to back from 0 on take no memory."""
    samples = len(offsets)
    size = int(lengths[0]) if samples else 0
    if samples and (lengths == size).all() and (offsets == np.arange(samples) * size).all():
        return ColumnLayout(samples, context, joinable, size)
    return ColumnLayout(samples, context, joinable, 0, offsets, lengths)


def equal_samples(name: str, size_bytes: int, told: Expectation) -> ColumnLayout:
    """Return the layout of equal samples that fill a file. Raises UsageError when nothing tells their size."""
    if told.shape is not None:
        sample_bytes = SampleSpec(told.shape, told.dtype or "uint8").sample_bytes
    elif told.samples is not None:
        sample_bytes = size_bytes // told.samples
    else:
        raise UsageError(f"{name} files do not tell their samples", remedy="give the option shape, or samples")
    samples = size_bytes // sample_bytes if sample_bytes else 0
    fits = samples * sample_bytes == size_bytes and sample_bytes % np.dtype(told.dtype or "uint8").itemsize == 0
    if not fits or samples < 1 or told.samples not in (None, samples):
        raise CorruptError(
            f"{name}: file size does not fit its samples",
            expected=f"{told.samples or 'a whole number'} of {sample_bytes} bytes",
            got=f"{size_bytes} bytes",
        )
    return ColumnLayout(samples, told, joinable=True, sample_bytes=sample_bytes)
