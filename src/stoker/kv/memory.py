"""A tier in the host's memory: entries as they lie in their files."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stoker.core import clock
from stoker.core.errors import NotFoundError
from stoker.kv.content import EntryContent
from stoker.kv.spans import Spans

OnPiece = Callable[[int, memoryview], None]
"""What looks at a piece that was read: its offset in the file, and the bytes."""


class MemoryTier:
    """Entries in memory of this process. Safe from many threads."""

    read_alone = False

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._held: dict[str, NDArray[np.uint8]] = {}

    def write(self, content: EntryContent) -> Spans:
        """Make the entry and keep it."""
        began_ns = clock.monotonic_ns()
        held = np.empty(content.size_bytes, np.uint8)
        for start in range(0, held.size, self._piece_bytes):
            content.fill(start, held[start : start + self._piece_bytes].data)
        self._held[content.key] = held
        return Spans(host_ns=clock.monotonic_ns() - began_ns)

    def read(self, content: EntryContent, scratch: memoryview, look: OnPiece) -> Spans:
        """Copy the entry piece by piece into `scratch` and let `look` see each."""
        held = self._entry(content.key)
        spans = Spans()
        for start in range(0, held.size, scratch.nbytes):
            began_ns = clock.monotonic_ns()
            piece = scratch[: min(scratch.nbytes, held.size - start)]
            np.copyto(np.frombuffer(piece, np.uint8), held[start : start + piece.nbytes])
            copied_ns = clock.monotonic_ns()
            look(start, piece)
            spans.host_ns += copied_ns - began_ns
            spans.content_ns += clock.monotonic_ns() - copied_ns
        return spans

    def pieces(self, content: EntryContent) -> Iterator[memoryview]:
        """Yield the entry's bytes, without a copy."""
        held = self._entry(content.key)
        for start in range(0, held.size, self._piece_bytes):
            yield held[start : start + self._piece_bytes].data

    def take(self, content: EntryContent, pieces: Iterator[memoryview]) -> Spans:
        """Keep an entry that comes from another tier."""
        began_ns = clock.monotonic_ns()
        held = np.empty(content.size_bytes, np.uint8)
        start = 0
        for piece in pieces:
            held[start : start + piece.nbytes] = np.frombuffer(piece, np.uint8)
            start += piece.nbytes
        self._held[content.key] = held
        return Spans(host_ns=clock.monotonic_ns() - began_ns)

    def delete(self, key: str) -> None:
        """Forget an entry; one that is not there is no error."""
        self._held.pop(key, None)

    def _entry(self, key: str) -> NDArray[np.uint8]:
        held = self._held.get(key)
        if held is None:
            raise NotFoundError("entry of the KV cache is gone from memory", where=key)
        return held
