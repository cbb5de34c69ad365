"""What a range of a file is made of: pure values. A span's bytes are in memory, or part of a slice."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stoker.fs.meta.answers import Shown
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes


class Span(NamedTuple):
    """The bytes [start, stop) of a file: those of `source` from `shift` on."""

    start: int
    stop: int
    source: Bytes | Slice
    shift: int

    def clipped(self, start: int, stop: int) -> "Span":
        """Return what of the span lies in [start, stop), which it overlaps."""
        low = max(self.start, start)
        return Span(low, min(self.stop, stop), self.source, self.shift + low - self.start)


def shown_spans(shown: Iterable[Shown], start: int, stop: int) -> list[Span]:
    """Return the spans of extents in [start, stop), in order."""
    spans = []
    for one in shown:
        end = one.offset_bytes + one.extent.length
        if one.offset_bytes < stop and end > start:
            span = Span(one.offset_bytes, end, one.extent.slice, one.extent.offset)
            spans.append(span.clipped(start, stop))
    return spans


def painted(spans: Sequence[Span], above: Span) -> list[Span]:
    """Return the spans with one more over them, in order."""
    kept = []
    for span in spans:
        if span.stop <= above.start or span.start >= above.stop:
            kept.append(span)
            continue
        if span.start < above.start:
            kept.append(span.clipped(span.start, above.start))
        if span.stop > above.stop:
            kept.append(span.clipped(above.stop, span.stop))
    kept.append(above)
    kept.sort(key=lambda span: span.start)
    return kept
