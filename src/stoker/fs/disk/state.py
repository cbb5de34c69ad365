"""The parts of an open disk, and how it fares: what the functions that write, read and mend it work on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import DeniedError, NoSpaceError, StoreError
from stoker.core.units import GiB, MiB
from stoker.fs.disk.files import DiskFailingError, Files, SyncFailedError, told
from stoker.fs.disk.handles import Handles
from stoker.fs.disk.identity import Identity
from stoker.fs.disk.index import Entry, Index
from stoker.fs.disk.interface import ShardId
from stoker.fs.disk.segments import SEGMENT_BYTES, SegmentLog
from stoker.fs.disk.syncing import GroupSync, KeyedLocks
from stoker.fs.disk.wholes import FileHead, Wholes

INDEX_NAME: Final = "index.db"
SEGMENTS_NAME: Final = "segments"
SHARDS_NAME: Final = "shards"
_RESERVE_BYTES: Final = 1 * GiB


class DiskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a disk is used; none of it is part of the format.

    small_bytes     shards smaller than this are packed into segments
    segment_bytes   how large a segment grows
    reserve_bytes, reserve_ratio   the greater of both stays free: so much space, or this part of the file system;
                    unless told 1 GiB, but no more than a tenth of a small file system
    open_files      files kept open for reading
    loose_bytes_max, changes_max   so much may wait for its sync, or for the index, before a writer sees to it
    compact_below_ratio   a segment is compacted when no more than this part of it is in use
    """

    small_bytes: int = 1 * MiB
    segment_bytes: int = SEGMENT_BYTES
    reserve_bytes: int | None = None
    reserve_ratio: float = 0.01
    open_files: int = 256
    loose_bytes_max: int = 256 * MiB
    changes_max: int = 4096
    compact_below_ratio: float = 0.5


class Compaction(msgspec.Struct):
    """How far the compaction of a segment has come."""

    segment: int
    offset: int


class Fresh:
    """A large shard whose file is not durable yet; without a handle only its name is not."""

    __slots__ = ("failed", "handle", "size_bytes")

    def __init__(self, handle: int, size_bytes: int) -> None:
        self.handle: int | None = handle
        self.failed = False
        self.size_bytes = size_bytes


class DiskState:
    """An open disk."""

    def __init__(
        self, folder: Path, identity: Identity, index: Index, files: Files, options: DiskOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.where = str(folder)
        self.identity = identity
        self.options = options
        self.files = files
        self.clock = clock
        self.index = index
        self.segments_folder = folder / SEGMENTS_NAME
        self.log = SegmentLog(
            files, self.segments_folder, identity, segment_bytes=options.segment_bytes, last=index.facts.last_segment
        )
        self.wholes = Wholes(files, folder / SHARDS_NAME)
        self.segment_handles: Handles[int] = Handles(files, options.open_files)
        self.file_handles: Handles[FileHead] = Handles(files, options.open_files)
        self.locks = KeyedLocks()
        self.mutex = threading.Lock()  # of what follows
        self.fresh: dict[ShardId, Fresh] = {}
        self.unlinking: set[tuple[ShardId, int]] = set()  # told to be gone, the file still there
        self.unlinked: set[tuple[ShardId, int]] = set()  # the file removed, but not yet durably
        self.folders_dirty: set[Path] = set()
        self.writing_bytes = 0
        self.read_only = ""
        self.checkpointing = threading.Lock()
        self.compacting = threading.Lock()
        self.compaction: Compaction | None = None
        self.scrubbing = threading.Lock()
        self.folder_group = GroupSync(self.sync_folders)

    def require_writable(self) -> None:
        """Raise DeniedError while nothing may be written."""
        if self.read_only:
            raise DeniedError("disk is read-only", where=self.where, got=self.read_only)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Guard what writes: a disk that fails is written to no more, and says why. Raises StoreError."""
        self.require_writable()
        try:
            yield
        except (DiskFailingError, SyncFailedError) as error:
            self.turn_read_only(str(error))
            raise StoreError(
                error.what, where=error.where, got=error.got,
                remedy="the disk is read-only until it is opened anew; look at the kernel's log",
            ) from error  # fmt: skip

    def turn_read_only(self, reason: str) -> None:
        """Write nothing more."""
        with self.mutex:
            self.read_only = self.read_only or reason
        self.count_error()

    def count_error(self) -> None:
        """Count one more thing that was not as it must be."""
        with self.index.changing() as facts:
            facts.errors += 1

    def mark_bad(self, entry: Entry) -> None:
        """Note that a shard is damaged, if it is still the one at that place."""
        shard = entry.header.shard
        with self.index.changing() as facts:
            facts.errors += 1
            now = self.index.get(shard)
            if now is not None and now.place == entry.place and not now.bad:
                self.index.set(shard, Entry(now.header, now.place, bad=True))

    @contextmanager
    def room_for(self, size_bytes: int) -> Iterator[None]:
        """Raise NoSpaceError when writing so much would touch the reserve; count it while it is being written."""
        try:
            capacity_bytes, free_bytes = self.files.room(self.folder)
        except OSError as error:
            raise told(error, "disk does not tell its free space", self.where) from error
        reserve_bytes = self.reserve_bytes(capacity_bytes)
        with self.mutex:
            if free_bytes - self.writing_bytes - size_bytes < reserve_bytes:
                raise NoSpaceError(
                    "disk is full", where=self.where, expected=f"{size_bytes} beside {reserve_bytes} in reserve",
                    got=f"{free_bytes} free", remedy="free some space or add a disk",
                )  # fmt: skip
            self.writing_bytes += size_bytes
        try:
            yield
        finally:
            with self.mutex:
                self.writing_bytes -= size_bytes

    def reserve_bytes(self, capacity_bytes: int) -> int:
        """Return how much of a file system of that size stays free."""
        told_bytes = self.options.reserve_bytes
        least_bytes = min(_RESERVE_BYTES, capacity_bytes // 10) if told_bytes is None else told_bytes
        return max(least_bytes, int(self.options.reserve_ratio * capacity_bytes))

    def sync_folders(self) -> None:
        """Make durable which files there are. Raises SyncFailedError."""
        with self.mutex:
            if self.read_only:
                raise SyncFailedError("disk is read-only", where=self.where, got=self.read_only)
            folders, self.folders_dirty = self.folders_dirty, set()
        try:
            self.wholes.sync_folders(sorted(folders))
        except SyncFailedError as error:
            self.turn_read_only(str(error))  # at once: whoever syncs next must not succeed
            raise

    def close(self) -> None:
        """Close every handle; nothing is made durable."""
        with self.mutex:
            handles = [fresh.handle for fresh in self.fresh.values() if fresh.handle is not None]
            self.fresh.clear()
            self.read_only = self.read_only or "it was closed"
        for handle in handles:
            self.files.close(handle)
        self.log.close()
        self.segment_handles.close()
        self.file_handles.close()
        self.index.close()
