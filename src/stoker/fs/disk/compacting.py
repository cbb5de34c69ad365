"""Taking space back: what is in use of a segment is appended to the log once more, then its file is removed.

One segment at a time, the one begun first: so there is never more than one older copy of a record, and none once the
old file is gone. Readers that hold the old file read on in it. Records of removals go along while what they name is
still on the disk. A crash at any step leaves each shard in one place that counts, by the order of the log.
"""

from collections.abc import Sequence
from contextlib import suppress

from stoker.core.errors import NotFoundError
from stoker.fs.disk import format as layout
from stoker.fs.disk.files import telling
from stoker.fs.disk.index import IN_FILES, Entry
from stoker.fs.disk.scanning import Found, Removed, SegmentScan
from stoker.fs.disk.segments import Place, segment_path
from stoker.fs.disk.state import Compaction, DiskState
from stoker.fs.disk.writing import checkpoint, tell_gone


def compact(state: DiskState, budget_bytes: int) -> int:
    """Move up to about so many bytes out of segments that are mostly dead; return how many were moved.

    Call it again and again; 0 says that there is nothing to do. Raises NoSpaceError, StoreError.
    """
    moved_bytes = 0
    with state.writing(), state.compacting:
        while moved_bytes < budget_bytes:
            run = state.compaction or _begun(state)
            if run is None:
                break
            state.compaction = run
            moved_bytes += max(1, _move(state, run, budget_bytes - moved_bytes))
    return moved_bytes


def _begun(state: DiskState) -> Compaction | None:
    with state.index.changing() as facts:
        number = facts.half_compacted if facts.half_compacted in facts.segments else _mostly_dead(state)
        facts.half_compacted = number
    return Compaction(number, layout.SEGMENT_HEADER_BYTES) if number else None


def _mostly_dead(state: DiskState) -> int:
    """Return the segment with the least in use, 0 when none is worth it; the index is held still."""
    newest, _ = state.log.settled()
    best = (state.options.compact_below_ratio, 0)
    for number, known in state.index.facts.segments.items():
        end = state.log.sealed.get(number, known.end)
        if number < newest and (number not in state.index.facts.stuck or not known.live_bytes):
            ratio = known.used_bytes() / max(1, end - layout.SEGMENT_HEADER_BYTES)
            best = min(best, (ratio, number)) if ratio <= state.options.compact_below_ratio else best
    return best[1]


def _move(state: DiskState, run: Compaction, budget_bytes: int) -> int:
    moved_bytes, begun = 0, run.offset
    gathered: list[layout.Gone] = []
    scan = SegmentScan(state.files, state.segments_folder, state.identity, run.segment)
    try:
        for seen in scan.walk(run.offset):
            if isinstance(seen, Found):
                moved_bytes += _move_shard(state, seen, scan.data)
            elif isinstance(seen, Removed):
                gathered += _needed(state, seen)
                moved_bytes += _move_removals(state, gathered, layout.GONE_MAX)
            run.offset = seen.place.offset + seen.place.size_bytes
            if moved_bytes >= budget_bytes:
                return moved_bytes + _move_removals(state, gathered, 1)
        moved_bytes += _move_removals(state, gathered, 1)
    except NotFoundError:
        pass  # removed already, before a crash
    except BaseException:
        run.offset = begun  # what was gathered is gathered again; shards that were moved are passed over
        raise
    _finish(state, run)
    return moved_bytes


def _move_shard(state: DiskState, seen: Found, data: memoryview) -> int:
    """Append a shard once more if the log counts this record of it; damaged ones go along as they are."""
    shard = seen.header.shard
    with state.locks.hold(shard):
        entry = state.index.get(shard)
        if entry is None or entry.place != seen.place:
            return 0
        header = layout.pack_header(seen.header)
        with state.log.appending(layout.KIND_SHARD, header, [data], origin=seen.place.segment) as place:
            state.index.set(shard, Entry(entry.header, place, entry.bad or bool(seen.wrong)))
    return place.size_bytes


def _needed(state: DiskState, seen: Removed) -> list[layout.Gone]:
    """Return the removals of a record that name what is still on the disk."""
    with state.index.changing() as facts:
        segments = set(facts.segments)
    with state.mutex:
        files = state.unlinking | state.unlinked
    return [
        gone
        for gone in seen.removals
        if ((gone.shard, gone.offset) in files if gone.segment == IN_FILES else _counts(gone, seen.place, segments))
    ]


def _move_removals(state: DiskState, gathered: list[layout.Gone], least: int) -> int:
    """Append removals once there are so many; those of many records fit into one, which takes far less room."""
    moved_bytes = 0
    while len(gathered) >= least:
        some = gathered[: layout.GONE_MAX]
        tell_gone(state, some)
        del gathered[: len(some)]
        moved_bytes += layout.GONE_BYTES * len(some)
    return moved_bytes


def _counts(gone: layout.Gone, place: Place, segments: set[int]) -> bool:
    """Tell whether the record that a removal names is still on the disk after this segment is gone."""
    return gone.segment != place.segment and gone.segment in segments


def _finish(state: DiskState, run: Compaction) -> None:
    """Remove the file, when the index says durably that nobody needs it."""
    state.compaction = None
    checkpoint(state)
    with state.index.changing() as facts:
        rest_bytes = facts.segments[run.segment].live_bytes if run.segment in facts.segments else 0
    if rest_bytes:
        _leave(state, run)
        return
    path = segment_path(state.segments_folder, run.segment)
    with telling("segment cannot be removed", str(path)):
        with suppress(FileNotFoundError):
            state.files.unlink(path)
        state.files.sync_folder(state.segments_folder)
    state.segment_handles.forget(run.segment)
    with state.index.changing() as facts:
        facts.segments.pop(run.segment, None)
        facts.half_compacted = 0
        facts.stuck = [number for number in facts.stuck if number != run.segment]
    state.log.sealed.pop(run.segment, None)
    state.index.forget_gone(run.segment)


def _leave(state: DiskState, run: Compaction) -> None:
    """Keep a segment that holds shards whose headers are no longer readable, and tell that the rest of it is gone."""
    stale: list[layout.Gone] = []
    scan = SegmentScan(state.files, state.segments_folder, state.identity, run.segment)
    for seen in scan.walk():
        if isinstance(seen, Found):
            stale.append(layout.Gone(seen.header.shard, seen.place.segment, seen.place.offset))
    _tell_stale(state, stale)
    with state.index.changing() as facts:
        facts.stuck = sorted({*facts.stuck, run.segment})
        facts.half_compacted = 0
    state.count_error()


def _tell_stale(state: DiskState, stale: Sequence[layout.Gone]) -> None:
    for start in range(0, len(stale), layout.GONE_MAX):
        tell_gone(state, stale[start : start + layout.GONE_MAX])
    state.log.group.wait()
