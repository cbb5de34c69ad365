"""Removing the shared memory of stores that nobody has open any more."""

from stoker.pages.arena.arena import PERSISTENT, Arena
from stoker.pages.arena.mapping import attach_mapping, named_arenas, unborn_arenas, unlink_mapping
from stoker.pages.arena.readers import start_ticks
from stoker.pages.errors import CorruptPages, PageNotFound


def sweep_dead() -> list[str]:
    """Remove named stores in memory whose processes all died, and what died while it was made; return their names.

    The arena of a store with a folder stays: it may hold commits that are not flushed, and the next to open it goes
    on with it. Of a damaged arena only the name is known: it stays too.
    """
    gone = []
    for name in named_arenas():
        try:
            arena = Arena(attach_mapping(name))
        except (PageNotFound, CorruptPages):
            continue
        with arena.lock.held():
            arena.readers.sweep()
            deserted = not arena.readers.attached()
            if deserted and not arena.geometry.flags & PERSISTENT:
                unlink_mapping(name)
                gone.append(name)
        arena.mapping.close()
    for path, pid in unborn_arenas():
        if not start_ticks(pid):
            path.unlink(missing_ok=True)
            gone.append(path.name)
    return gone
