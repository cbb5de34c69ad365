"""Whether an arena's tables agree with each other: what a killed process may have left is found here, or nowhere."""

import numpy as np

from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Word, class_bytes
from stoker.pages.arena.table import LIVE_STATES


def audit(arena: Arena) -> list[str]:
    """Return what is wrong, a sentence each; none for a sound arena. It waits for the commit lock."""
    with arena.lock.held():
        return [*_extents(arena), *_slots(arena), *_ring(arena)]


def _extents(arena: Arena) -> list[str]:
    live = arena.table.live()
    used = [(int(row["offset"]), int(row["extent"]), f"page {row['id']}") for row in live]
    apart = live[live["meta_extent"] > 0]
    used += [(int(row["meta_offset"]), int(row["meta_extent"]) - 1, f"metadata of page {row['id']}") for row in apart]
    used += [(offset, kind, "a retired extent") for offset, kind in arena.redo.retired()]
    used += [(offset, kind, "a free extent") for offset, kind in arena.extents.free()]
    wrong, end, before = [], arena.geometry.data_offset, "the tables"
    for offset, kind, what in sorted(used):
        if offset < end:
            wrong.append(f"{what} at {offset} lies over {before}")
        end, before = max(end, offset + class_bytes(kind)), what
    if end > arena.words[Word.BREAK]:
        wrong.append(f"{before} lies beyond the mark of what was ever used")
    return wrong


def _slots(arena: Arena) -> list[str]:
    records, live = arena.table.records(), arena.table.live()
    wrong = [f"page {row['id']} is being changed by nobody" for row in live if int(row["seq"]) & 1]
    free = arena.table.free_slots()
    expected = set((np.flatnonzero(~np.isin(records["state"], LIVE_STATES)) + 1).tolist())
    if len(free) != len(set(free)) or set(free) != expected:
        wrong.append(f"list of free slots has {len(free)} of {len(expected)}")
    if arena.words[Word.LIVE_PAGES] != len(live):
        wrong.append(f"{arena.words[Word.LIVE_PAGES]} pages are counted, {len(live)} are there")
    if arena.words[Word.LIVE_BYTES] != int(live["size"].sum()):
        wrong.append(f"{arena.words[Word.LIVE_BYTES]} bytes are counted, {int(live['size'].sum())} are there")
    return wrong


def _ring(arena: Arena) -> list[str]:
    expected, last = arena.words[Word.FLOOR_LSN], None
    for frame in arena.ring.frames(arena.words[Word.FLOOR_POS], arena.words[Word.COMMITTED_POS]):
        if frame.lsn != expected:
            return [f"log ring has LSN {frame.lsn} where {expected} belongs"]
        expected, last = expected + 1, frame
    if expected != arena.words[Word.COMMITTED_LSN] + 1:
        return [f"log ring ends before LSN {expected}, the newest commit is {arena.words[Word.COMMITTED_LSN]}"]
    return ["log ring ends inside a commit"] if last is not None and not last.last else []
