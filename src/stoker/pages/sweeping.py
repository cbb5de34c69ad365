"""The stores in this host's shared memory: which there are, and removing those that nobody has open any more."""

import msgspec

from stoker.core.processes import start_ticks
from stoker.pages.arena.arena import PERSISTENT, Arena
from stoker.pages.arena.layout import Word
from stoker.pages.arena.mapping import attach_mapping, named_arenas, unborn_arenas, unlink_mapping
from stoker.pages.errors import CorruptPages, PageNotFound


class MemoryStore(msgspec.Struct, frozen=True):
    """A store in shared memory, as it is without being attached. `wrong` says why it cannot be read, else empty.

    in_folder  its log goes to a folder: open it by that path to make its commits durable
    processes  that have it open; 0 when all of them were killed
    """

    name: str
    lsn: int = 0
    pages: int = 0
    page_bytes: int = 0
    processes: int = 0
    in_folder: bool = False
    wrong: str = ""


def memory_stores() -> list[MemoryStore]:
    """Return the stores in shared memory that this user may see, by name."""
    return [_seen(name) for name in named_arenas()]


def _seen(name: str) -> MemoryStore:
    try:
        arena = Arena(attach_mapping(name))
    except (PageNotFound, CorruptPages, PermissionError) as error:
        return MemoryStore(name, wrong=str(error))
    words = arena.words
    found = MemoryStore(
        name,
        int(words[Word.COMMITTED_LSN]),
        int(words[Word.LIVE_PAGES]),
        int(words[Word.LIVE_BYTES]),
        len(arena.readers.attached()),
        bool(arena.geometry.flags & PERSISTENT),
    )
    arena.mapping.close()
    return found


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
