"""Opening a store that lasts: join its arena, or make one from the newest checkpoint and the log behind it."""

from pathlib import Path

from stoker.pages.arena.arena import PERSISTENT, Arena
from stoker.pages.arena.layout import plan_geometry
from stoker.pages.arena.loading import load_images
from stoker.pages.arena.mapping import attach_mapping, create_mapping, named_arenas
from stoker.pages.errors import CorruptLog
from stoker.pages.flushing import Flusher
from stoker.pages.folder import StoreFolder
from stoker.pages.history import State, latest_valid, replay
from stoker.pages.journal import Journal, JournalEnd, recover, scan


def open_arena(folder: StoreFolder) -> tuple[Arena, Flusher]:
    """Return the arena of a folder's store and what flushes it; the folder's lock is held.

    An arena whose processes all died is as good as any: it has what they committed, flushed or not. Raises CorruptLog,
    ChecksumError, OutOfSpace.
    """
    if folder.arena_name in named_arenas():
        return _join(folder)
    return _rebuild(folder)


def create_folder(path: Path, *, size_bytes: int, pages_max: int, log_bytes: int, segment_bytes: int) -> StoreFolder:
    """Make the folder of a new store; its identity comes last. Raises UsageError for a folder with other things."""
    folder = StoreFolder.prepare(
        path, size_bytes=size_bytes, pages_max=pages_max, log_bytes=log_bytes, segment_bytes=segment_bytes
    )
    identity = folder.identity
    Journal.create(
        folder.log, uuid=bytes.fromhex(identity.uuid), salt=identity.salt, segment_bytes=identity.segment_bytes
    ).close()
    folder.publish()
    return folder


def _join(folder: StoreFolder) -> tuple[Arena, Flusher]:
    arena = Arena(attach_mapping(folder.arena_name))
    journal = Journal.open(folder.log, segment_bytes=folder.identity.segment_bytes)
    flusher = Flusher(arena, journal)
    with arena.lock.held(), arena.flush_lock.held():
        end = flusher.end()
        if not journal.reaches(end):
            raise CorruptLog(
                "log of the store is shorter than its shared memory says",
                where=str(folder.path),
                expected=f"{end.offset_bytes} bytes from LSN {end.segment_first_lsn} on",
                remedy=f"if the folder was put back from elsewhere, remove /dev/shm/stoker-pages-{folder.arena_name}",
            )
    return arena, flusher


def _rebuild(folder: StoreFolder) -> tuple[Arena, Flusher]:
    state, end = recovered_state(folder)
    identity = folder.identity
    geometry = plan_geometry(
        bytes.fromhex(identity.uuid),
        identity.salt,
        data_bytes=identity.size_bytes,
        page_slots=identity.pages_max,
        ring_bytes=identity.log_bytes,
        flags=PERSISTENT,
    )
    mapping = create_mapping(geometry, folder.arena_name)
    try:
        arena = Arena(mapping)
        arena.prepare(next_lsn=end.last_lsn + 1)
        load_images(arena, state.pages.values(), generation=state.max_generation)
        flusher = Flusher(arena, Journal.open(folder.log, segment_bytes=identity.segment_bytes))
        flusher.begin(end)
        arena.publish()
    except BaseException:
        mapping.discard()
        raise
    return arena, flusher


def recovered_state(folder: StoreFolder) -> tuple[State, JournalEnd]:
    """Return the pages that the newest sound checkpoint and the log give, and where the log ends; mends a torn tail."""
    found = recover(folder.log)
    base, wrong = latest_valid(folder.checkpoints)
    if base.lsn + 1 < found.first_lsn:
        raise CorruptLog(
            "log begins behind the newest sound checkpoint",
            where=str(folder.path),
            expected=f"LSN {base.lsn + 1}",
            got=f"LSN {found.first_lsn}{': ' + wrong[0] if wrong else ''}",
        )
    return replay(base, scan(folder.log, since=base.lsn + 1)), found.end
