"""Opening a disk: what the index does not know yet is read from the shards, and everything when it is unfit.

After a crash that is the end of the log, and the large shards whose files it does not tell of. What a power failure
tore was never called durable: it is wiped, so that nobody takes it for damage later. What was durable and is no longer
readable is never dropped: it is counted, told, and makes the inventory incomplete.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.units import MiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.files import FAILING, Files, telling
from stoker.fs.disk.identity import Identity
from stoker.fs.disk.index import IN_FILES, Entry, Facts, Index, IndexUnfitError
from stoker.fs.disk.interface import ShardId
from stoker.fs.disk.scanning import Found, Removed, Seen, SegmentScan, Unreadable
from stoker.fs.disk.segments import Place, segment_numbers, segment_path
from stoker.fs.disk.state import INDEX_NAME, SEGMENTS_NAME, SHARDS_NAME, DiskOptions, DiskState
from stoker.fs.disk.wholes import DONE, NEW, shard_named

_WIPED_AT_ONCE_BYTES: Final = 1 * MiB
_UNFINISHED: Final = "it was being made again"
_UNCOMMITTED_MAX: Final = 50_000


def open_state(
    folder: Path, identity: Identity, files: Files, options: DiskOptions, clock: Callable[[], float],
    index_folder: Path | None, *, rebuild: bool = False,
) -> DiskState:  # fmt: skip
    """Return the open disk in a folder. Raises CorruptError, StoreError, UsageError for a newer format."""
    read_only = _why_read_only(folder, files)
    path = None if read_only else (index_folder or folder) / INDEX_NAME
    index, known = _index_for(path, identity, clock, rebuild=rebuild)
    try:
        state = DiskState(folder, identity, index, files, options, clock)
        state.read_only = read_only
        if not known or not _is_as_it_was_left(state):
            _Recovery(state).run(everything=not known)
    except _IndexBehindError:
        index.close()
        return open_state(folder, identity, files, options, clock, index_folder, rebuild=True)
    except BaseException:
        index.close()
        raise
    try:
        _go_on(state)
    except BaseException:
        state.log.close()
        index.close()
        raise
    return state


class _IndexBehindError(Exception):
    """The index tells of other segments than are there: it has to be made again."""


def _why_read_only(folder: Path, files: Files) -> str:
    """Have the folders there; return why nothing can be written, empty when it can. Raises StoreError."""
    with telling("folder of a disk cannot be made", str(folder)):
        if files.is_read_only(folder):
            return "the file system is mounted read-only"
        try:
            for name in (SEGMENTS_NAME, SHARDS_NAME):
                files.make_folder(folder / name)
        except OSError as error:
            if error.errno in FAILING:
                return error.strerror or str(error)
            raise
    return ""


def _index_for(
    path: Path | None, identity: Identity, clock: Callable[[], float], *, rebuild: bool
) -> tuple[Index, bool]:
    """Return the disk's index, and whether it knows anything."""
    if path is not None and not rebuild:
        with suppress(IndexUnfitError):
            return Index.open(path, identity.volume, identity.disk), True
    facts = Facts(disk=identity.disk, made_seconds=clock())
    return Index.make(path, identity.volume, facts), False


def _lengths(state: DiskState) -> dict[int, int]:
    """Return the segments that are there, with their sizes in bytes."""
    found: dict[int, int] = {}
    for number in segment_numbers(state.files.names(state.segments_folder)):
        handle = state.files.open_reading(segment_path(state.segments_folder, number))
        try:
            found[number] = state.files.length(handle)
        finally:
            state.files.close(handle)
    return found


def _is_as_it_was_left(state: DiskState) -> bool:
    """Tell whether the disk was closed in order and nobody wrote to it since. Raises _IndexBehindError."""
    facts = state.index.facts
    with telling("segments cannot be read", state.where):
        lengths = _lengths(state)
    unknown = any(number <= facts.last_segment and number not in facts.segments for number in lengths)
    lost = any(known.live_bytes and number not in lengths for number, known in facts.segments.items())
    shorter = any(known.end > lengths[n] for n, known in facts.segments.items() if n in lengths and known.live_bytes)
    if unknown or lost or shorter:
        raise _IndexBehindError
    return facts.clean and all(n in facts.segments and facts.segments[n].end >= lengths[n] for n in lengths)


def _go_on(state: DiskState) -> None:
    """Say durably that the disk is in use, and get the last segment ready to be appended to."""
    if state.read_only:
        return
    facts = state.index.facts
    number = state.log.number = facts.last_segment
    path = segment_path(state.segments_folder, number)
    known = facts.segments.get(number)
    if known is not None and known.end < state.options.segment_bytes:
        scan = SegmentScan(state.files, state.segments_folder, state.identity, number)
        with suppress(NotFoundError, CorruptError):  # removed, or not ours: a new one is begun
            salt = scan.salt()
            with telling("segment cannot be read", str(path)):
                length = _length(state.files, path)
            if not scan.header_damaged:
                state.log.resume(max(length, layout.SEGMENT_HEADER_BYTES), salt)
    with state.index.changing():
        facts.clean = False
    state.index.commit()


def _length(files: Files, path: Path) -> int:
    handle = files.open_reading(path)
    try:
        return files.length(handle)
    finally:
        files.close(handle)


class _Recovery:
    """Brings the index up to what lies on the disk."""

    def __init__(self, state: DiskState) -> None:
        self._state = state
        self._index = state.index
        self._gone_files: set[tuple[ShardId, int]] = set()
        self._torn: list[Place] = []
        self._folders: set[Path] = set()

    def run(self, *, everything: bool) -> None:
        """Read what the index does not know, and commit it."""
        with telling("segments cannot be read", self._state.where):
            lengths = _lengths(self._state)
        facts = self._index.facts
        if everything:
            facts.last_segment = max(lengths, default=0)
            facts.damaged = _UNFINISHED
        for number in sorted(lengths):
            self._segment(number, lengths[number], is_last=number == max(lengths))
            if everything and self._index.uncommitted() > _UNCOMMITTED_MAX:
                self._index.commit()
        facts.last_segment = max([facts.last_segment, *lengths])
        self._files()
        if self._state.read_only:
            return
        for place in self._torn:
            self._wipe(place)
        if facts.damaged == _UNFINISHED:
            facts.damaged = ""
        self._index.commit(prepare=self._make_durable)

    # -- segments ------------------------------------------------------------------------------------------------

    def _segment(self, number: int, length: int, *, is_last: bool) -> None:
        facts = self._index.segment(number)
        start = max(facts.end, layout.SEGMENT_HEADER_BYTES)
        if start >= length:
            facts.end = max(facts.end, min(length, layout.SEGMENT_HEADER_BYTES))
            return
        scan = SegmentScan(self._state.files, self._state.segments_folder, self._state.identity, number)
        doubtful: list[Found | Unreadable] = []
        try:
            for seen in scan.walk(start):
                damaged = self._apply(seen)
                if damaged is not None:
                    doubtful.append(damaged)
        except CorruptError as error:
            self._incomplete(str(error))
            return
        if scan.header_damaged:
            self._state.count_error()
        for damage in doubtful:
            self._judge(damage, durable=not is_last or _end(damage.place) <= scan.synced_bytes)
        facts.end = layout.aligned(scan.end, layout.RECORD_ALIGN_BYTES)

    def _apply(self, seen: Seen) -> Found | Unreadable | None:
        """Note what a record says; return it when it is damaged."""
        if isinstance(seen, Unreadable):
            return seen
        if isinstance(seen, Removed):
            self._index.note_gone(seen.place.segment, _names(seen.removals))
            for gone in seen.removals:
                self._gone(gone)
            return None
        header = seen.header
        if header.volume != self._state.identity.volume:
            self._incomplete(f"shard {header.shard} of volume {header.volume} in segment {seen.place.segment}")
            return None
        old = self._index.get(header.shard)
        if old is not None and old.place == seen.place:
            return None
        if seen.origin and seen.origin in self._index.facts.segments:
            self._index.facts.half_compacted = seen.origin
        if not seen.wrong or old is None or old.bad:
            bare = msgspec.structs.replace(header, crcs=b"")
            self._index.set(header.shard, Entry(bare, seen.place, bad=bool(seen.wrong)))
        return seen if seen.wrong else None

    def _gone(self, gone: layout.Gone) -> None:
        entry = self._index.get(gone.shard)
        if gone.segment == IN_FILES:
            # The index may know an older file of the shard than the one removed: what lies there decides.
            self._gone_files.add((gone.shard, gone.offset))
            forgotten = entry is not None and entry.place.segment == IN_FILES
        else:
            named = (gone.segment, gone.offset)
            forgotten = entry is not None and (entry.place.segment, entry.place.offset) == named
        if forgotten:
            self._index.set(gone.shard, None)

    def _judge(self, damage: Found | Unreadable, *, durable: bool) -> None:
        """Decide what a damaged record is: torn by a crash before it was durable, or damaged since."""
        if durable:
            if isinstance(damage, Unreadable):
                self._incomplete(
                    f"{damage.place.size_bytes} bytes at {damage.place.offset} in segment {damage.place.segment}"
                )
            else:
                self._state.count_error()
            return
        self._torn.append(damage.place)
        if isinstance(damage, Found):
            entry = self._index.get(damage.header.shard)
            if entry is not None and entry.place == damage.place:
                self._index.set(damage.header.shard, None)

    def _incomplete(self, reason: str) -> None:
        with self._index.changing() as facts:
            facts.incomplete = facts.incomplete or f"not readable: {reason}"
        self._state.count_error()

    def _wipe(self, place: Place) -> None:
        path = segment_path(self._state.segments_folder, place.segment)
        with telling("torn record cannot be wiped", str(path)):
            handle = self._state.files.open(path)
            try:
                for start in range(0, place.size_bytes, _WIPED_AT_ONCE_BYTES):
                    size_bytes = min(_WIPED_AT_ONCE_BYTES, place.size_bytes - start)
                    self._state.files.write(handle, place.offset + start, [bytes(size_bytes)])
                self._state.files.sync(handle)
            finally:
                self._state.files.close(handle)

    # -- files ---------------------------------------------------------------------------------------------------

    def _files(self) -> None:
        found = 0
        for path in self._state.wholes.walk():
            shard = shard_named(path)
            entry = self._index.get(shard)
            known = entry is not None and entry.place.segment == IN_FILES
            if (known and path == self._state.wholes.path(shard, DONE)) or self._look(path):
                found += 1
        if found < self._index.facts.files:
            self._miss_files()

    def _look(self, path: Path) -> bool:
        """Take a file in that the index does not tell of; return whether it is a shard's now."""
        is_new = path.suffix == NEW
        try:
            head = self._state.wholes.look(path, deep=is_new)
        except CorruptError as error:
            if is_new:
                self._drop(path)
            else:
                self._incomplete(str(error))
            return False
        shard = head.header.shard
        if head.header.volume != self._state.identity.volume:
            self._incomplete(f"{path} is of volume {head.header.volume}")
            return False
        if (shard, head.token) in self._gone_files:
            self._drop(path)
            return False
        old = self._index.get(shard)
        if old is not None and old.place.segment != IN_FILES and not old.bad:
            self._state.count_error()
            return False
        if not self._state.read_only:
            self._state.wholes.settle(path, shard)
        size_bytes = head.data_start + head.header.shard_bytes
        bare = msgspec.structs.replace(head.header, crcs=b"")
        self._index.set(shard, Entry(bare, Place(IN_FILES, head.token, size_bytes)))
        self._folders.add(path.parent)
        return old is None or old.place.segment != IN_FILES

    def _drop(self, path: Path) -> None:
        if self._state.read_only:
            return
        with telling("torn file cannot be removed", str(path)):
            self._state.files.unlink(path)
        self._folders.add(path.parent)

    def _miss_files(self) -> None:
        """Forget shards whose file is gone, and count them: somebody else removed them."""
        for entry in list(self._index.entries()) if self._index.facts.files else ():
            if entry.place.segment != IN_FILES:
                continue
            try:
                handle, _ = self._state.wholes.open(entry.header.shard)
            except NotFoundError:
                self._index.set(entry.header.shard, None)
                self._state.count_error()
            except CorruptError:
                self._state.mark_bad(entry)
            else:
                self._state.files.close(handle)

    def _make_durable(self) -> None:
        self._state.wholes.sync_folders(sorted(self._folders))
        numbers = list(self._index.facts.segments)
        if numbers:
            path = segment_path(self._state.segments_folder, max(numbers))
            with suppress(NotFoundError), telling("segment cannot be synced", str(path)):
                handle = self._state.files.open(path)
                try:
                    self._state.files.sync(handle)
                finally:
                    self._state.files.close(handle)


def _end(place: Place) -> int:
    return place.offset + place.size_bytes


def _names(removals: Sequence[layout.Gone]) -> dict[int, int]:
    counted: dict[int, int] = {}
    for gone in removals:
        counted[gone.segment] = counted.get(gone.segment, 0) + 1
    return counted
