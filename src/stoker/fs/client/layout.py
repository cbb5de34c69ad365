"""What shows in an open file, as far as it was asked: extents by chunk, the size, and how long both are believed."""

from typing import Final

from stoker.fs.client.spans import Span, shown_spans
from stoker.fs.meta.answers import Extents, Shown
from stoker.fs.meta.records import Attr
from stoker.fs.meta.slices import CHUNK_BYTES

CHUNKS_MAX: Final = 64
_UNKNOWN: Final = -1


class Layout:
    """A file's size, version and extents. `generation` grows with each change that this client makes itself.

    Whoever asks the metadata notes the generation first: an answer from before a change of one's own tells nothing.
    Not safe from several threads: the file's lock is held.
    """

    def __init__(self, believed_seconds: float, attr: Attr) -> None:
        self.size_bytes = attr.size_bytes
        self.version = attr.version
        self.storage_class = attr.storage_class
        self.flags = attr.flags
        self.generation = 0
        self.doubted = False
        self._believed_ns = int(believed_seconds * 1e9)
        self._checked_ns = 0
        self.frozen = False
        self._chunks: dict[int, tuple[Shown, ...]] = {}

    # -- what is known

    def is_fresh(self, now_ns: int) -> bool:
        """Tell whether what is known is still believed."""
        return self.frozen or (not self.doubted and 0 <= now_ns - self._checked_ns <= self._believed_ns)

    def covers(self, offset: int, size: int) -> bool:
        """Tell whether the extents of a range are known, as far as the file goes."""
        stop = min(offset + size, self.size_bytes)
        if offset >= stop:
            return not self.doubted
        return all(index in self._chunks for index in range(offset // CHUNK_BYTES, (stop - 1) // CHUNK_BYTES + 1))

    def wanted(self, offset: int, size: int) -> tuple[int, int]:
        """Return the range to ask for, on the grid of chunks."""
        stop = max(min(offset + size, self.size_bytes), offset + 1)
        return offset // CHUNK_BYTES * CHUNK_BYTES, -(-stop // CHUNK_BYTES) * CHUNK_BYTES

    def spans(self, start: int, stop: int) -> list[Span]:
        """Return the spans that show in a range that is covered."""
        if start >= stop:
            return []
        found: list[Span] = []
        for index in range(start // CHUNK_BYTES, (stop - 1) // CHUNK_BYTES + 1):
            found += shown_spans(self._chunks[index], start, stop)
        return found

    # -- what is learned

    def learn(self, attr: Attr, now_ns: int) -> None:
        """Take the size from attributes; forget extents when the file has changed."""
        if attr.version < self.version:
            return
        if attr.version != self.version:
            self._chunks.clear()
        self.version, self.size_bytes = attr.version, attr.size_bytes
        self.storage_class, self.flags = attr.storage_class, attr.flags
        self.doubted, self._checked_ns = False, now_ns

    def add(self, first: int, stop: int, answer: Extents, now_ns: int) -> None:
        """Take the extents of the chunks `first` to `stop`."""
        if answer.version != self.version:
            self._chunks.clear()
        chunks: dict[int, list[Shown]] = {index: [] for index in range(first, stop)}
        for one in answer.shown:
            chunks[one.offset_bytes // CHUNK_BYTES].append(one)
        for index, shown in chunks.items():
            self._chunks.pop(index, None)
            self._chunks[index] = tuple(shown)
        while len(self._chunks) > max(CHUNKS_MAX, stop - first):
            del self._chunks[next(iter(self._chunks))]
        self.version, self.size_bytes = answer.version, answer.size_bytes
        self.doubted, self._checked_ns = False, now_ns

    def shown(self, offset: int, size: int) -> None:
        """Note that one request of this client's has shown other bytes in a range."""
        self.generation += 1
        for index in range(offset // CHUNK_BYTES, (offset + max(size, 1) - 1) // CHUNK_BYTES + 1):
            self._chunks.pop(index, None)
        self.size_bytes = max(self.size_bytes, offset + size)
        if self.version != _UNKNOWN:
            self.version += 1  # when others have written, too, the next answer tells a greater one

    def freeze(self) -> None:
        """Believe what is known for ever: the file is gone, and who read it reads on while its slices are kept."""
        self.frozen, self.doubted = True, False

    # -- what is doubted

    def forget(self) -> None:
        """Forget all: another request of this client's has changed the file."""
        self.generation += 1
        self._chunks.clear()
        self.version, self.doubted = _UNKNOWN, True

    def forget_extents(self) -> None:
        """Have the extents asked for anew, and with them the size."""
        self._chunks.clear()
        self.doubted = True

    def doubt(self) -> None:
        """Have the attributes asked for, to learn whether the extents are still true."""
        self.doubted = True
