"""Sources that need no store: bytes in memory, and a few pieces of a larger file, also as file objects."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from stoker.core.errors import CorruptError, ShortReadError
from stoker.formats.api import RangeSource


class MemorySource:
    """A whole file in memory, with its companions by suffix."""

    def __init__(self, data: bytes | bytearray | memoryview, side_files: Mapping[str, bytes] | None = None) -> None:
        self._view = memoryview(data).cast("B")
        self._side_files = dict(side_files or {})
        self.size_bytes = len(self._view)

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range, as a view. Raises ShortReadError beyond the end."""
        end = offset_bytes + length_bytes
        if offset_bytes < 0 or length_bytes < 0 or end > self.size_bytes:
            raise ShortReadError("range beyond the end", expected=f"[{offset_bytes}, {end})", got=str(self.size_bytes))
        return self._view[offset_bytes:end]

    def side_file(self, suffix: str) -> memoryview | None:
        """Return the companion with this suffix, None when there is none."""
        found = self._side_files.get(suffix)
        return None if found is None else memoryview(found)


class PieceSource:
    """Some ranges of a file, as if the rest were there: reading outside them raises CorruptError."""

    def __init__(self, size_bytes: int, pieces: Sequence[tuple[int, memoryview]]) -> None:
        self.size_bytes = size_bytes
        self._pieces = pieces

    def read(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """Return exactly the range, as a view of the piece that holds it."""
        for start, piece in self._pieces:
            first = offset_bytes - start
            if first >= 0 and first + length_bytes <= len(piece):
                return piece[first : first + length_bytes]
        raise CorruptError(
            "the file points outside the parts its footer names", got=f"[{offset_bytes}, {offset_bytes + length_bytes})"
        )

    def side_file(self, suffix: str) -> memoryview | None:
        """Return None: pieces have no companions."""
        return None


class RangeFile:
    """A read-only file object over a source, for libraries that want one. Reads past the end are short."""

    def __init__(self, source: RangeSource) -> None:
        self._source = source
        self._position = 0
        self.closed = False

    def read(self, size: int = -1) -> memoryview:
        """Return up to `size` bytes as a view; all that is left when negative."""
        left = max(0, self._source.size_bytes - self._position)
        length = left if size < 0 else min(size, left)
        view = self._source.read(self._position, length) if length else memoryview(b"")
        self._position += length
        return view

    def readinto(self, into: Any) -> int:
        """Fill all of `into`: HDF5 would take what a short read leaves for data. Raises CorruptError at the end."""
        target = memoryview(into).cast("B")
        view = self.read(len(target))
        if len(view) != len(target):
            raise CorruptError("read beyond the end of the file", expected=f"{len(target)} bytes", got=f"{len(view)}")
        target[: len(view)] = view
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as a file does and return the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return False."""
        return False

    def flush(self) -> None:
        """Do nothing: there is nothing to write."""

    def close(self) -> None:
        """Mark as closed; the bytes belong to somebody else."""
        self.closed = True
