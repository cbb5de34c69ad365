"""Opening a store that lasts: join its arena, or make one from the newest checkpoint and the log behind it."""

from pathlib import Path

from stoker.core.clock import wall_tick_ns
from stoker.core.files import sync_folder
from stoker.pages.arena.arena import PERSISTENT, Arena
from stoker.pages.arena.layout import Word, plan_geometry
from stoker.pages.arena.loading import load_images
from stoker.pages.arena.mapping import PREFIX, attach_mapping, create_mapping, named_arenas, remove_unborn
from stoker.pages.errors import CorruptLog, CorruptPages
from stoker.pages.flushing import Flusher
from stoker.pages.folder import StoreFolder
from stoker.pages.history import CheckpointFacts, State, latest_valid, replay_tables, write_checkpoint
from stoker.pages.journal import Journal, JournalEnd, recover, scan_tables
from stoker.pages.snapshot import Snapshot


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
    _new_journal(folder, 1).close()
    folder.publish()
    return folder


def _join(folder: StoreFolder) -> tuple[Arena, Flusher]:
    try:
        arena = Arena(attach_mapping(folder.arena_name))
    except CorruptPages as error:
        raise type(error)(
            "shared memory of the store is damaged",
            where=str(folder.path),
            got=str(error),
            remedy=f"remove /dev/shm/{PREFIX}{folder.arena_name}: the folder has all that was made durable",
        ) from error
    try:
        return _joined(folder, arena)
    except BaseException:
        arena.mapping.close()
        raise


def _joined(folder: StoreFolder, arena: Arena) -> tuple[Arena, Flusher]:
    if not arena.readers.attached():
        folder.remove_unfinished()
        if arena.poison():
            return _cure(folder, arena)
    journal = Journal.open(folder.log, segment_bytes=folder.identity.segment_bytes)
    flusher = Flusher(arena, journal)
    with arena.lock.held(), arena.flush_lock.held():
        end = flusher.end()
        if not journal.reaches(end):
            raise CorruptLog(
                "log of the store is shorter than its shared memory says",
                where=str(folder.path),
                expected=f"{end.offset_bytes} bytes from LSN {end.segment_first_lsn} on",
                remedy=f"if the folder was put back from elsewhere, remove /dev/shm/{PREFIX}{folder.arena_name}",
            )
    return arena, flusher


def _cure(folder: StoreFolder, arena: Arena) -> tuple[Arena, Flusher]:
    """Go on with an arena whose log failed: all it holds goes into a new checkpoint, and a new log begins behind it.

    What a failed write or sync left in the old segments is unknown: they are set aside, not used and not removed. Until
    the last step the store is as it was, or is found by `recovered_state` as it is here.
    """
    with Snapshot(arena) as snapshot:
        facts = CheckpointFacts(
            arena.geometry.uuid, snapshot.lsn, wall_tick_ns(), max_generation=arena.table.max_generation()
        )
        write_checkpoint(folder.checkpoints, snapshot.columns(), facts)
        lsn = snapshot.lsn
    journal = _restarted_journal(folder, lsn + 1)
    flusher = Flusher(arena, journal)
    flusher.begin(journal.start())
    arena.words[Word.POISON] = 0
    return arena, flusher


def _restarted_journal(folder: StoreFolder, first_lsn: int) -> Journal:
    """Set all segments aside, the newest first: a crash leaves the beginning of the log, never one with gaps."""
    for path in sorted(folder.log.glob("log-*.stk"), reverse=True):
        path.rename(path.with_name(f"{path.name}.aside"))
        sync_folder(folder.log)
    return _new_journal(folder, first_lsn)


def _new_journal(folder: StoreFolder, first_lsn: int) -> Journal:
    identity = folder.identity
    return Journal.create(
        folder.log,
        uuid=bytes.fromhex(identity.uuid),
        salt=identity.salt,
        segment_bytes=identity.segment_bytes,
        first_lsn=first_lsn,
    )


def _rebuild(folder: StoreFolder) -> tuple[Arena, Flusher]:
    folder.remove_unfinished()
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
    remove_unborn(folder.arena_name)
    mapping = create_mapping(geometry, folder.arena_name)
    try:
        arena = Arena(mapping)
        arena.prepare(next_lsn=end.last_lsn + 1)
        load_images(arena, state.pages.values(), generation=state.next_generation)
        flusher = Flusher(arena, Journal.open(folder.log, segment_bytes=identity.segment_bytes))
        flusher.begin(end)
        arena.publish()
    except BaseException:
        mapping.discard()
        raise
    return arena, flusher


def recovered_state(folder: StoreFolder) -> tuple[State, JournalEnd]:
    """Return the pages that the newest sound checkpoint and the log give, and where the log ends; mends a torn tail."""
    base, wrong = latest_valid(folder.checkpoints, uuid=bytes.fromhex(folder.identity.uuid))
    if not any(folder.log.glob("log-*.stk")) and any(folder.log.glob("log-*.aside")):
        _new_journal(folder, base.lsn + 1).close()  # a cure was broken off between its last two steps
    found = recover(folder.log)
    if found.last_lsn < base.lsn:  # the same, earlier: what the log lacks is in the checkpoint
        _restarted_journal(folder, base.lsn + 1).close()
        found = recover(folder.log)
    if base.lsn + 1 < found.first_lsn:
        raise CorruptLog(
            "log begins behind the newest sound checkpoint",
            where=str(folder.path),
            expected=f"LSN {base.lsn + 1}",
            got=f"LSN {found.first_lsn}{': ' + wrong[0] if wrong else ''}",
        )
    return replay_tables(base, scan_tables(folder.log, since=base.lsn + 1)), found.end
