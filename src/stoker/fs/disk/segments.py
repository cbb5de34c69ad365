"""The log of small shards: files to which records are appended, by many threads side by side.

A record is written in place allotted beforehand; nothing that is written is ever changed. A new segment is begun only
when the one before is durable. Removals are records too. What a power failure tore is found by its checksums.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.units import MiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.files import Files, SyncFailedError, telling, told
from stoker.fs.disk.identity import Identity
from stoker.fs.disk.interface import Bytes
from stoker.fs.disk.syncing import GroupSync
from stoker.kernels import checking

SEGMENT_BYTES: Final = 256 * MiB
_SUFFIX: Final = ".seg"
_DIGITS: Final = 8


class Place(msgspec.Struct, frozen=True):
    """Where a record lies. Segment 0 stands for a file of its own, whose token is the offset."""

    segment: int
    offset: int
    size_bytes: int


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment."""
    return folder / f"{number:0{_DIGITS}d}{_SUFFIX}"


def segment_numbers(names: Sequence[str]) -> list[int]:
    """Return the numbers of the segments among the names of a folder, in order."""
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if len(stem) == _DIGITS and stem.isascii() and stem.isdigit())


class SegmentLog:
    """Appends records. `last` is the highest number that a segment ever had.

    `number` and `end` tell where the next record goes, `sealed` the ends of those that were filled meanwhile.
    """

    def __init__(self, files: Files, folder: Path, identity: Identity, *, segment_bytes: int, last: int) -> None:
        self._files = files
        self._folder = folder
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._state = threading.Condition()
        self._syncing = threading.Lock()
        self._rolling = False
        self._in_flight: set[int] = set()
        self._handle: int | None = None
        self._salt_crc = 0
        self._synced_bytes = 0
        self.group = GroupSync(self._sync)
        self.number = last
        self.end = 0
        self.sealed: dict[int, int] = {}
        self.appended = False
        self._failed = ""

    def resume(self, end: int, salt: bytes) -> None:
        """Go on behind `end` in the last segment, and make durable what lies before. Raises StoreError."""
        path = segment_path(self._folder, self.number)
        with telling("segment cannot be opened", str(path)):
            self._handle = self._files.open(path)
        self._sync_handle(self._handle)
        self._salt_crc = checking.crc32c(salt)
        self.end = self._synced_bytes = layout.aligned(end, layout.RECORD_ALIGN_BYTES)

    def settled(self) -> tuple[int, int]:
        """Return the last segment and the place in it before which every record is written and known."""
        with self._state:
            return self.number, min(self._in_flight, default=self.end)

    def is_synced(self, place: Place) -> bool:
        """Tell whether a record is certainly durable."""
        with self._state:
            return place.segment < self.number or place.offset + place.size_bytes <= self._synced_bytes

    def unsynced(self) -> bool:
        """Tell whether there are records that may not be durable."""
        with self._state:
            return bool(self._in_flight) or self._synced_bytes < self.end

    @contextmanager
    def appending(self, kind: int, header: bytes, parts: Sequence[Bytes], origin: int = 0) -> Iterator[Place]:
        """Append a record, and give its place while what follows from it is noted. Raises NoSpaceError, StoreError."""
        data_bytes = sum(memoryview(part).nbytes for part in parts)
        data_start = layout.PREFIX_BYTES + len(header)
        size_bytes = layout.aligned(data_start + data_bytes, layout.RECORD_ALIGN_BYTES)
        handle, place, synced_bytes, salt_crc = self._allot(size_bytes)
        prefix = layout.Prefix(
            kind, place.segment, place.offset, size_bytes, data_start, data_bytes, synced_bytes, origin
        )
        padding = bytes(size_bytes - data_start - data_bytes)
        pieces = [layout.pack_prefix(prefix, salt_crc), header, *parts, padding]
        try:
            self._files.write(handle, place.offset, [memoryview(p).cast("B") for p in pieces if memoryview(p).nbytes])
        except OSError as error:
            self._give_up(handle, place)
            raise told(error, "record cannot be appended", str(segment_path(self._folder, place.segment))) from error
        except BaseException:
            self._give_up(handle, place)
            raise
        try:
            yield place
        finally:
            self._landed(place)

    def _landed(self, place: Place, *, failed: bool = False) -> None:
        with self._state:
            self._in_flight.discard(place.offset)
            if failed and place.offset + place.size_bytes == self.end:
                self.end = place.offset
            self._state.notify_all()

    def _give_up(self, handle: int, place: Place) -> None:
        """Leave nothing behind that looks like a record, and take the place back when nobody is behind it."""
        try:
            with suppress(OSError):  # then nothing was written there either
                self._files.write(handle, place.offset, [bytes(layout.PREFIX_BYTES)])
        finally:
            self._landed(place, failed=True)

    def _allot(self, size_bytes: int) -> tuple[int, Place, int, int]:
        with self._state:
            while self._rolling or self._handle is None or not self._fits(size_bytes):
                if self._rolling:
                    self._state.wait()
                else:
                    self._roll()
            place = Place(self.number, self.end, size_bytes)
            self.end += size_bytes
            self.appended = True
            self._in_flight.add(place.offset)
            return self._handle, place, self._synced_bytes, self._salt_crc

    def _fits(self, size_bytes: int) -> bool:
        return self.end + size_bytes <= self._segment_bytes or self.end == layout.SEGMENT_HEADER_BYTES

    def _roll(self) -> None:
        """Begin a new segment, once the old one is durable; the state's lock is held, and let go meanwhile."""
        self._rolling = True
        try:
            while self._in_flight:
                self._state.wait()
            self._state.release()
            try:
                self._begin()
            finally:
                self._state.acquire()
        finally:
            self._rolling = False
            self._state.notify_all()

    def _begin(self) -> None:
        number = self.number + 1
        path = segment_path(self._folder, number)
        salt = self._identity.salt(number)
        header = layout.SegmentHeader(number, self._identity.volume, self._identity.disk, salt)
        with self._syncing:
            old = self._handle
            if old is not None:
                self._sync_handle(old)
            with telling("segment cannot be begun", str(path)):
                handle = self._made(path, layout.pack_segment(header))
            with self._state:
                if old is not None:
                    self.sealed[self.number] = self.end
                self._handle, self.number, self._salt_crc = handle, number, checking.crc32c(salt)
                self.end = self._synced_bytes = layout.SEGMENT_HEADER_BYTES
            if old is not None:
                self._files.close(old)

    def _made(self, path: Path, header: bytes) -> int:
        handle = self._files.open(path, create=True)
        try:
            self._files.write(handle, 0, [header])
            self._files.sync(handle)
            self._files.sync_folder(self._folder)
        except BaseException:
            self._files.close(handle)
            with suppress(OSError):
                self._files.unlink(path)
            raise
        return handle

    def _sync(self) -> None:
        with self._syncing:
            with self._state:
                handle, number, settled = self._handle, self.number, min(self._in_flight, default=self.end)
            if handle is None:
                return
            self._sync_handle(handle)
        with self._state:
            if self.number == number:
                self._synced_bytes = max(self._synced_bytes, settled)

    def _sync_handle(self, handle: int) -> None:
        """Sync; once it has failed it fails for ever: the kernel forgets what it could not write."""
        try:
            if not self._failed:
                self._files.sync(handle)
        except OSError as error:
            self._failed = error.strerror or str(error)
        if self._failed:
            path = segment_path(self._folder, self.number)
            raise SyncFailedError("sync of a segment failed", where=str(path), got=self._failed)

    def close(self) -> None:
        """Give the handle back; what is not synced stays so."""
        with self._syncing, self._state:
            if self._handle is not None:
                self._files.close(self._handle)
                self._handle = None
