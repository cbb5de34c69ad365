"""Files that are overwritten in small pieces: a place that shows too many slices is stored again as few.

Every change of a chunk reads and writes the list of what shows in it, so its length is what a write costs. A place is
4 MiB, as large as a slice: what is written again is a small multiple of the bytes whose writing made it necessary.
"""

from collections.abc import Sequence
from typing import Final

from stoker.fs.client.gather import gather
from stoker.fs.client.options import PIECE_BYTES
from stoker.fs.client.runs import Run
from stoker.fs.client.spans import Span, shown_spans
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Peeked, Refusal
from stoker.fs.meta.calls import Call, Compact, Peek
from stoker.fs.meta.slices import Slice

SLICES_MAX: Final = 128
"""Of a place, before it is stored again."""
_GAIN_MIN: Final = 4


class Layers:
    """How often places of a file were written to since they were last stored as one."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, runs: Sequence[Run]) -> None:
        """Note that runs, neighbours of each other, are shown."""
        start = runs[0].at
        stop = start + sum(run.size_bytes for run in runs)
        for place in range(start // PIECE_BYTES, (stop - 1) // PIECE_BYTES + 1):
            whole = start <= place * PIECE_BYTES and (place + 1) * PIECE_BYTES <= stop
            self._counts[place] = 0 if whole else self._counts.get(place, 0) + 1

    def due(self) -> list[int]:
        """Return the places that may show too many slices."""
        return [place for place, count in self._counts.items() if count >= SLICES_MAX]

    def done(self, place: int) -> None:
        """Note that a place was looked at."""
        self._counts.pop(place, None)


def data_runs(spans: Sequence[Span]) -> list[list[Span]]:
    """Return spans in groups without holes."""
    runs: list[list[Span]] = []
    for span in spans:
        if runs and runs[-1][-1].stop == span.start:
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def compact(works: Works, ino: int, session: int, place: int) -> bool:
    """Store a place of a file as one slice for each stretch without holes; tell whether it was.

    Nothing is done where that would not make them many fewer, or when the file changes meanwhile. Raises StokerError:
    then everything shows as before.
    """
    start, stop = place * PIECE_BYTES, (place + 1) * PIECE_BYTES
    found: Peeked = works.ask(Peek(ino, limit_bytes=stop), session=0)
    spans = shown_spans(found.shown, start, min(stop, found.attr.size_bytes))
    runs = data_runs(spans)
    if len(spans) < _GAIN_MIN * len(runs) or not spans:
        return False
    pieces = tuple(_stored(works, run, session, found.attr.storage_class) for run in runs)
    request = Compact(ino, start, stop - start, found.attr.version, pieces)
    [answer] = works.commits.commit([data for _, data in pieces], [Call(request, session=session)])
    return not isinstance(answer, Refusal)


def _stored(works: Works, run: Sequence[Span], session: int, storage_class: int) -> tuple[int, Slice]:
    content = b"".join(gather(works.blocks, [(run, run[0].start, run[-1].stop)])[0])
    data = works.new_slice(len(content), session, storage_class)
    works.store_slice(data, content)
    return run[0].start, data
