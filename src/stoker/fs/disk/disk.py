"""One disk: shards in one folder, which one process at a time has open. A `ShardHolder`."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from stoker.fs.disk import compacting, reading, scrubbing, writing
from stoker.fs.disk.files import Files, SystemFiles, telling
from stoker.fs.disk.identity import lock_folder, make_identity, read_identity
from stoker.fs.disk.interface import (
    FORMAT,
    Bytes,
    HolderStatus,
    Outcome,
    ShardHeader,
    ShardId,
    ShardPage,
    Wanted,
    get_each,
)
from stoker.fs.disk.opening import open_state
from stoker.fs.disk.reading import Span
from stoker.fs.disk.scrubbing import ScrubReport
from stoker.fs.disk.state import DiskOptions, DiskState

LISTED_MAX = 10_000


class ShardReader:
    """A shard open for reading."""

    def __init__(self, state: DiskState, source: reading.Source) -> None:
        self._state = state
        self._source = source
        self.header = source.header

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """Return the bytes of each range (offset, length), verified. Raises CorruptError, UsageError, StoreError."""
        return reading.read_ranges(self._state, self._source, ranges)

    def unverified(self, offset: int, length: int, memory: Callable[[int], memoryview]) -> memoryview:
        """Return bytes of the shard as they lie on the disk, for who verifies them; in `memory` unless read already.

        Raises CorruptError where they end early, StoreError.
        """
        return reading.read_unverified(self._state, self._source, offset, length, memory)


class Disk:
    """Shards in a folder. Every method is safe from many threads.

    folder   made a disk by `Disk.make`; `index_folder` holds the index elsewhere, for example on a faster device
    clock    seconds since 1970
    rebuild  make the index again from the shards, whatever there is
    """

    def __init__(
        self, folder: Path, options: DiskOptions | None = None, *, index_folder: Path | None = None,
        rebuild: bool = False, files: Files | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Open a disk. Raises NotFoundError where none is, UsageError for one that is open, CorruptError."""
        self.folder = folder
        self._closed = False
        identity = read_identity(folder)
        self._lock = lock_folder(folder)
        try:
            self._state = open_state(
                folder, identity, files or SystemFiles(), options or DiskOptions(), clock, index_folder,
                rebuild=rebuild,
            )  # fmt: skip
        except BaseException:
            os.close(self._lock)
            raise
        self.volume = identity.volume
        self.disk = identity.disk

    @classmethod
    def make(cls, folder: Path, volume: str, options: DiskOptions | None = None) -> Self:
        """Make an empty folder a disk of a volume, and open it. Raises UsageError for a folder that is not empty."""
        make_identity(folder, volume)
        return cls(folder, options)

    # -- ShardHolder ---------------------------------------------------------------------------------------------

    def put(self, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool, checked: bool = False) -> None:
        """See ShardHolder. `checked` says that the caller made the checksums from these very bytes."""
        writing.put(self._state, header, parts, durable=durable, checked=checked)

    def get(self, shard: ShardId, ranges: Sequence[tuple[int, int]]) -> list[Bytes]:
        """See ShardHolder."""
        with self.reading(shard) as reader:
            return reader.read(ranges)

    def get_many(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """See ShardHolder."""
        return get_each(self, wanted)

    def header(self, shard: ShardId) -> ShardHeader:
        """See ShardHolder."""
        with reading.opened(self._state, shard) as source:
            return source.header

    def sync(self, shards: Sequence[ShardId]) -> None:
        """See ShardHolder."""
        writing.sync(self._state, shards)

    def remove(self, shards: Sequence[ShardId]) -> None:
        """See ShardHolder; durable when it returns."""
        writing.remove(self._state, shards)

    def listing(self, after: ShardId | None, limit: int) -> ShardPage:
        """See ShardHolder; at most 10,000 at a time."""
        limit = max(1, min(limit, LISTED_MAX))
        entries = self._state.index.page(after, limit + 1)
        with self._state.index.changing() as facts:
            complete = not facts.incomplete and not facts.damaged
        shown = entries[:limit]
        bad = [entry.header.shard for entry in shown if entry.bad]
        return ShardPage([entry.header for entry in shown], bad, len(entries) > limit, complete)

    def status(self) -> HolderStatus:
        """See ShardHolder."""
        state = self._state
        with telling("disk does not tell its free space", state.where):
            capacity_bytes, free_bytes = state.files.room(self.folder)
        scrubbed = scrubbing.scrub_status(state)
        with state.index.changing() as facts:
            return HolderStatus(
                volume=self.volume, disk=self.disk, format=FORMAT, capacity_bytes=capacity_bytes,
                free_bytes=max(0, free_bytes - state.reserve_bytes(capacity_bytes)), used_bytes=facts.used_bytes,
                shards=facts.shards, bad_shards=facts.bad_shards, errors=facts.errors,
                complete=not facts.incomplete and not facts.damaged, read_only=state.read_only, scrub=scrubbed,
            )  # fmt: skip

    @contextmanager
    def reading(self, shard: ShardId) -> Iterator[ShardReader]:
        """Give a shard that is open for reading, with its header. Raises as `get`."""
        with reading.opened(self._state, shard) as source:
            yield ShardReader(self._state, source)

    # -- for a chunk server --------------------------------------------------------------------------------------

    def span(self, shard: ShardId, offset: int, length: int) -> Span:
        """Return the place of the cells that cover a range, for `sendfile`; to be closed. Raises as `get`."""
        return reading.span(self._state, shard, offset, length)

    def verify(self, shard: ShardId) -> int | None:
        """Read a shard; return its first damaged cell, None when it is sound; damage is marked. Raises as `get`."""
        return reading.verify(self._state, shard)

    # -- upkeep --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make everything durable and let the index catch up: opening after a crash then has less to read."""
        writing.checkpoint(self._state)

    def compact(self, budget_bytes: int) -> int:
        """Take back space of mostly dead segments, moving up to about so many bytes; return how many were moved."""
        return compacting.compact(self._state, budget_bytes)

    def scrub(self, budget_bytes: int) -> ScrubReport:
        """Verify the next shards, about so many bytes of them."""
        return scrubbing.scrub(self._state, budget_bytes)

    def scrub_lightly(self, after: ShardId | None, limit: int) -> tuple[ScrubReport, ShardId | None]:
        """Compare the index with the files for some shards behind `after`; return where to go on."""
        return scrubbing.scrub_lightly(self._state, after, limit)

    def changed(self) -> bool:
        """Tell whether a checkpoint has anything to do."""
        state = self._state
        return not state.read_only and bool(state.fresh or state.index.uncommitted() or state.log.unsynced())

    def read_only(self) -> str:
        """Return why nothing can be written, empty when it can."""
        return self._state.read_only

    def used_bytes(self) -> int:
        """Return what the shards take, headers and alignment included."""
        with self._state.index.changing() as facts:
            return facts.used_bytes

    def scrub_is_due(self, interval_seconds: float) -> bool:
        """Tell whether a pass is under way, or the last one was begun so long ago."""
        return scrubbing.is_due(self._state, interval_seconds)

    def sync_counts(self) -> tuple[int, int]:
        """Return how often somebody waited for a sync of the log, and how many syncs that took."""
        return self._state.log.group.waits, self._state.log.group.syncs

    def close(self) -> None:
        """Make everything durable and give the folder back; closing twice is harmless. Raises StoreError."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._state.read_only:
                writing.checkpoint(self._state, clean=True)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give everything back as it is: what was not durable is found by the next opening, if it is whole."""
        self._closed = True
        if self._lock < 0:
            return
        self._state.close()
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        """Return the disk."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
