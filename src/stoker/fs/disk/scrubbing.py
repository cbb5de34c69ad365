"""Reading everything again: a deep pass verifies each cell, a light one compares the index with the files."""

from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, StoreError
from stoker.fs.disk.files import telling
from stoker.fs.disk.index import IN_FILES, Entry
from stoker.fs.disk.interface import ScrubStatus, ShardId
from stoker.fs.disk.reading import verify
from stoker.fs.disk.segments import segment_path
from stoker.fs.disk.state import DiskState

_PAGE: Final = 256


class ScrubReport(msgspec.Struct):
    """What a step of scrubbing found: `bad` names shards that are damaged, `missing` those that are not there."""

    checked_bytes: int = 0
    checked_shards: int = 0
    bad: list[ShardId] = []
    missing: list[ShardId] = []
    done: bool = False


def scrub(state: DiskState, budget_bytes: int) -> ScrubReport:
    """Verify shards from where the last call stopped until about so many bytes are read; `done` ends a pass.

    The position is kept with the index, so that a pass goes on after a restart. What is damaged is marked.
    """
    report = ScrubReport()
    with state.scrubbing:
        with state.index.changing() as facts:
            after = facts.scrub.after
            if after is None:
                facts.scrub.begun_seconds, facts.scrub.pass_bytes = state.clock(), 0
        while report.checked_bytes < budget_bytes and not report.done:
            page = state.index.page(after, _PAGE)
            report.done = not page
            for entry in page:
                _check(state, entry, report)
                after = entry.header.shard
                if report.checked_bytes >= budget_bytes:
                    break
        _note(state, after, report)
    return report


def _check(state: DiskState, entry: Entry, report: ScrubReport) -> None:
    shard = entry.header.shard
    report.checked_shards += 1
    report.checked_bytes += entry.place.size_bytes
    try:
        damaged = verify(state, shard) is not None
    except NotFoundError:
        return  # removed meanwhile
    except (CorruptError, StoreError):
        damaged = True
    if damaged:
        report.bad.append(shard)


def _note(state: DiskState, after: ShardId | None, report: ScrubReport) -> None:
    with state.index.changing() as facts:
        scrubbed = facts.scrub
        scrubbed.checked_bytes += report.checked_bytes
        scrubbed.pass_bytes += report.checked_bytes
        scrubbed.after = after
        if report.done:
            scrubbed.after = None
            scrubbed.passes += 1
            scrubbed.whole_since_seconds = scrubbed.begun_seconds


def scrub_status(state: DiskState) -> ScrubStatus:
    """Return how far scrubbing has come. The oldest age is that of the last whole pass's begin: no shard is older."""
    with state.index.changing() as facts:
        scrubbed = facts.scrub
        since = scrubbed.whole_since_seconds or facts.made_seconds
        ratio = 0.0 if scrubbed.after is None else min(1.0, scrubbed.pass_bytes / max(1, facts.used_bytes))
        age_seconds = max(0.0, state.clock() - since)
        return ScrubStatus(scrubbed.passes, ratio, scrubbed.checked_bytes, age_seconds)


def is_due(state: DiskState, interval_seconds: float) -> bool:
    """Tell whether a pass is under way, or the last one was begun so long ago; so may be a disk that is new."""
    with state.index.changing() as facts:
        scrubbed = facts.scrub
        return scrubbed.after is not None or state.clock() - scrubbed.whole_since_seconds >= interval_seconds


def scrub_lightly(state: DiskState, after: ShardId | None, limit: int) -> tuple[ScrubReport, ShardId | None]:
    """Look whether shards behind `after` are where the index says, and whole by their size; return where to go on.

    Their bytes are not read. A shard that is not there is forgotten, so that repair sees it missing.
    """
    report = ScrubReport()
    page = state.index.page(after, limit)
    for entry in page:
        after = entry.header.shard
        report.checked_shards += 1
        try:
            if not _is_there(state, entry):
                report.missing.append(after)
                _forget(state, entry)
        except (CorruptError, StoreError):
            report.bad.append(after)
    report.done = len(page) < limit
    return report, after


def _is_there(state: DiskState, entry: Entry) -> bool:
    place = entry.place
    if place.segment != IN_FILES:
        path = segment_path(state.segments_folder, place.segment)
        with telling("segment cannot be read", str(path)):
            try:
                handle = state.files.open_reading(path)
            except FileNotFoundError:
                return state.index.get(entry.header.shard) != entry
            try:
                return state.files.length(handle) >= place.offset + place.size_bytes
            finally:
                state.files.close(handle)
    try:
        handle, _ = state.wholes.open(entry.header.shard)
    except NotFoundError:
        return state.index.get(entry.header.shard) != entry
    except CorruptError:
        state.mark_bad(entry)
        raise
    state.files.close(handle)
    return True


def _forget(state: DiskState, entry: Entry) -> None:
    shard = entry.header.shard
    with state.locks.hold(shard):
        if state.index.get(shard) == entry:
            state.index.set(shard, None)
            state.count_error()
