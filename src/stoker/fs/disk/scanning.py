"""Reading a segment from its bytes alone: what lies in it, what was removed, and what is no longer readable."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.core.units import MiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.checksums import check_parts
from stoker.fs.disk.files import Files, telling
from stoker.fs.disk.identity import Identity
from stoker.fs.disk.interface import ShardHeader
from stoker.fs.disk.segments import Place, segment_path
from stoker.kernels import checking

_WINDOW_BYTES: Final = 4 * MiB


class Found(msgspec.Struct, frozen=True):
    """A shard's record. `wrong` tells what is the matter with its bytes, empty when they are those of its header."""

    place: Place
    header: ShardHeader
    origin: int
    wrong: str


class Removed(msgspec.Struct, frozen=True):
    """A record of removals."""

    place: Place
    removals: list[layout.Gone]


class Unreadable(msgspec.Struct, frozen=True):
    """Bytes in which no record, or no shard's header, can be recognised."""

    place: Place


Seen = Found | Removed | Unreadable


class SegmentScan:
    """Walks over a segment from a place on. `data` are the bytes of the record that was told last.

    `synced_bytes` tells afterwards how much of the segment was surely durable when its last records were written.
    """

    def __init__(self, files: Files, folder: Path, identity: Identity, number: int) -> None:
        self._files = files
        self._path = segment_path(folder, number)
        self._identity = identity
        self._number = number
        self._window = memoryview(b"")
        self._window_start = 0
        self.synced_bytes = 0
        self.end = layout.SEGMENT_HEADER_BYTES
        self.header_damaged = False
        self.data = memoryview(b"")

    def walk(self, start: int = layout.SEGMENT_HEADER_BYTES) -> Iterator[Seen]:
        """Yield what lies behind `start`, in order. Raises StoreError, UsageError for a foreign or newer segment."""
        with telling("segment cannot be read", str(self._path)):
            handle = self._files.open_reading(self._path)
            with closing(_Closing(self._files, handle)):
                salt_crc = checking.crc32c(self._salt(handle))
                self.end = max(self._files.length(handle), start)
                yield from self._records(handle, start, salt_crc)

    def salt(self) -> bytes:
        """Return the salt of the segment, as its header has it or, when that is damaged, as its disk makes it."""
        with telling("segment cannot be read", str(self._path)):
            handle = self._files.open_reading(self._path)
            with closing(_Closing(self._files, handle)):
                return self._salt(handle)

    def _salt(self, handle: int) -> bytes:
        try:
            header = layout.unpack_segment(self._read(handle, 0, layout.SEGMENT_HEADER_BYTES), str(self._path))
        except CorruptError:
            self.header_damaged = True
            return self._identity.salt(self._number)
        if header.volume != self._identity.volume or header.number != self._number:
            raise CorruptError(
                "segment is another volume's", where=str(self._path), expected=self._identity.volume, got=header.volume
            )
        return header.salt

    def _records(self, handle: int, start: int, salt_crc: int) -> Iterator[Seen]:
        lost_from: int | None = None
        offset = start
        while offset < self.end:
            head = self._read(handle, offset, layout.PREFIX_BYTES)
            prefix = layout.unpack_prefix(head, salt_crc, segment=self._number, offset=offset)
            if prefix is None:
                if lost_from is None and any(self._read(handle, offset, layout.RECORD_ALIGN_BYTES)):
                    lost_from = offset
                offset += layout.RECORD_ALIGN_BYTES
                continue
            if lost_from is not None:
                yield Unreadable(Place(self._number, lost_from, offset - lost_from))
                lost_from = None
            self.synced_bytes = max(self.synced_bytes, prefix.synced_bytes)
            seen = self._record(prefix, self._read(handle, offset, prefix.record_bytes))
            if seen is not None:
                yield seen
            offset += prefix.record_bytes
        if lost_from is not None:
            yield Unreadable(Place(self._number, lost_from, offset - lost_from))

    def _record(self, prefix: layout.Prefix, record: memoryview) -> Seen | None:
        place = Place(self._number, prefix.offset, prefix.record_bytes)
        data = self.data = record[prefix.data_start : prefix.data_start + prefix.data_bytes]
        if prefix.kind == layout.KIND_MARK:
            return None
        if prefix.kind == layout.KIND_GONE:
            removals = layout.unpack_gone(data)
            return Unreadable(place) if removals is None else Removed(place, removals)
        try:
            header = layout.unpack_header(record[layout.PREFIX_BYTES : prefix.data_start], str(self._path))
        except CorruptError:
            return Unreadable(place)
        try:
            check_parts(header, [data])
        except CorruptError as error:
            return Found(place, header, prefix.origin, str(error))
        return Found(place, header, prefix.origin, "")

    def _read(self, handle: int, offset: int, length: int) -> memoryview:
        """Return bytes of the segment, fewer where it ends; they are in memory until the next call."""
        start = offset - self._window_start
        if start >= 0 and start + length <= len(self._window):
            return self._window[start : start + length]
        memory = memoryview(bytearray(max(length, _WINDOW_BYTES)))
        self._window = memory[: self._files.fill(handle, offset, memory)]
        self._window_start = offset
        return self._window[:length]


class _Closing:
    def __init__(self, files: Files, handle: int) -> None:
        self._files = files
        self._handle = handle

    def close(self) -> None:
        self._files.close(self._handle)
