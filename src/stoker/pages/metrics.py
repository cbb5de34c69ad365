"""What a store is and did, as numbers: for people, for programs and in the text format of Prometheus."""

from typing import Final

import msgspec

from stoker.pages.arena.layout import Word
from stoker.pages.frames import Location, PageState
from stoker.pages.store import Store


class StoreStats(msgspec.Struct, frozen=True):
    """A store at one moment. `counters` count since its shared memory was made, over all processes.

    free_bytes  of the data area: never used yet; freed extents are not in it
    processes   that have the store open; 0 for one at rest, whose numbers come from its files: it has no counters
    """

    name: str
    lsn: int
    durable_lsn: int
    pages: int
    page_bytes: int
    pages_by_location: dict[str, int]
    pages_by_state: dict[str, int]
    arena_bytes: int
    free_bytes: int
    log_ring_bytes: int
    log_unflushed_bytes: int
    retired_extents: int
    snapshots_oldest_lsn: int
    processes: int
    poisoned: bool
    counters: dict[str, int]


def store_stats(store: Store) -> StoreStats:
    """Return a store's numbers."""
    arena, words = store.arena, store.arena.words
    with arena.lock.held():
        live = arena.table.live()
        processes = len(arena.readers.attached())
    oldest = int(words[Word.PIN_MIN])
    return StoreStats(
        name=store.name,
        lsn=store.lsn,
        durable_lsn=store.durable_lsn,
        pages=int(words[Word.LIVE_PAGES]),
        page_bytes=int(words[Word.LIVE_BYTES]),
        pages_by_location={one.name.lower(): int((live["location"] == one).sum()) for one in Location},
        pages_by_state={
            one.name.lower(): int((live["state"] == one).sum()) for one in PageState if one in live["state"]
        },
        arena_bytes=arena.geometry.data_bytes,
        free_bytes=arena.geometry.arena_bytes - int(words[Word.BREAK]),
        log_ring_bytes=arena.geometry.ring_bytes,
        log_unflushed_bytes=int(words[Word.COMMITTED_POS] - words[Word.FLUSHED_POS]) if store.flusher else 0,
        retired_extents=int(words[Word.RETIRED_END] - words[Word.RETIRED_FIRST]),
        snapshots_oldest_lsn=oldest - 1 if oldest else 0,
        processes=processes,
        poisoned=bool(arena.poison()),
        counters=store.counters(),
    )


_GAUGES: Final = {
    "lsn": "newest commit",
    "durable_lsn": "newest commit that survives a power loss",
    "pages": "live pages",
    "page_bytes": "bytes of live pages",
    "arena_bytes": "bytes for pages",
    "free_bytes": "bytes for pages that were never used",
    "log_unflushed_bytes": "bytes of the log that are only in shared memory",
    "retired_extents": "versions that snapshots hold",
    "processes": "processes that have the store open",
    "poisoned": "1 after the log could not be written",
}


def metrics_text(stats: StoreStats) -> str:
    """Return the numbers in the text format of Prometheus, version 0.0.4."""
    told = msgspec.to_builtins(stats)
    label = '{store="' + _escaped(stats.name or "unnamed") + '"}'
    lines: list[str] = []
    for name, meaning in _GAUGES.items():
        lines += [f"# HELP stoker_pages_{name} {meaning}", f"# TYPE stoker_pages_{name} gauge"]
        lines.append(f"stoker_pages_{name}{label} {int(told[name])}")
    for name, value in stats.counters.items():
        metric = f"stoker_pages_{name}_total"
        lines += [f"# HELP {metric} {name.replace('_', ' ')}", f"# TYPE {metric} counter", f"{metric}{label} {value}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
