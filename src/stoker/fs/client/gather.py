"""From spans to bytes: what lies in slices is read through the caches, many files at once."""

from collections.abc import Sequence

from stoker.fs.client.blocks import BlockReader
from stoker.fs.client.spans import Span
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes, SliceRange


def ranges_of(spans: Sequence[Span]) -> list[SliceRange]:
    """Return the parts of slices that spans show."""
    return [SliceRange(s.source, s.shift, s.stop - s.start) for s in spans if isinstance(s.source, Slice)]


def gather(
    blocks: BlockReader, wanted: Sequence[tuple[Sequence[Span], int, int]], *, passing: bool = False
) -> list[list[Bytes]]:
    """Return the bytes [start, stop) of each of several files, in pieces, from its spans: zeros lie between.

    `passing` tells that the reader does not come back to them.
    """
    ranges = [one for spans, _, _ in wanted for one in ranges_of(spans)]
    found = iter(blocks.read(ranges, passing=passing) if ranges else ())
    gathered = []
    for spans, start, stop in wanted:
        parts: list[Bytes] = []
        place = start
        for span in spans:
            if span.start > place:
                parts.append(bytes(span.start - place))
            if isinstance(span.source, Slice):
                parts += next(found)
            else:
                parts.append(memoryview(span.source)[span.shift : span.shift + span.stop - span.start])
            place = span.stop
        if stop > place:
            parts.append(bytes(stop - place))
        gathered.append(parts)
    return gathered
