"""Storing, removing and syncing shards, and the checkpoint that lets the index catch up with them."""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import AlreadyExistsError, CorruptError, NoSpaceError, NotFoundError, UsageError
from stoker.core.units import KiB
from stoker.fs.disk import format as layout
from stoker.fs.disk.checksums import check_parts
from stoker.fs.disk.files import SyncFailedError
from stoker.fs.disk.index import IN_FILES, Entry, Facts
from stoker.fs.disk.interface import Bytes, ShardHeader, ShardId, check_header
from stoker.fs.disk.reading import opened
from stoker.fs.disk.segments import Place
from stoker.fs.disk.state import DiskState, Fresh

_REMOVED_AT_ONCE: Final = 256
_ROOM_BYTES: Final = 64 * KiB
"""What a shard may take beside its data: header, alignment, folder."""
_OVERDUE: Final = 8


def put(state: DiskState, header: ShardHeader, parts: Sequence[Bytes], *, durable: bool, checked: bool = False) -> None:
    """Store a shard; see ShardHolder. `checked` says that the header's checksums were made from these very parts."""
    check_header(header)
    if header.volume != state.identity.volume:
        raise UsageError(
            "shard is another volume's", where=state.where, expected=state.identity.volume, got=header.volume
        )
    if not checked:
        check_parts(header, parts)
    with state.writing():
        with state.locks.hold(header.shard):
            old = state.index.get(header.shard)
            replaces = old is not None and not _is_same(state, old, header)
            if old is None or replaces:
                with state.room_for(header.shard_bytes + _ROOM_BYTES):
                    _store(state, header, parts)
        if durable or replaces:
            sync(state, [header.shard])
        if old is not None and replaces:
            # Only now: what is left of the damaged one may be needed until the new one is on the disk.
            with state.locks.hold(header.shard):
                _bury(state, old)
    _see_to_much_waiting(state)


def _is_same(state: DiskState, old: Entry, header: ShardHeader) -> bool:
    """Tell whether a shard is stored already, sound as far as is known. Raises AlreadyExistsError for another one."""
    if old.bad:
        return False
    try:
        with opened(state, header.shard) as source:
            stored = source.header
    except CorruptError:
        return False
    if stored != header:
        raise AlreadyExistsError(
            "another shard is stored under this id", where=f"{header.shard} on {state.where}",
            expected=f"{stored.shard_bytes} bytes of class {stored.storage_class} with the checksums stored",
            got=f"{header.shard_bytes} bytes of class {header.storage_class}",
        )  # fmt: skip
    return True


def _store(state: DiskState, header: ShardHeader, parts: Sequence[Bytes]) -> None:
    bare = msgspec.structs.replace(header, crcs=b"")
    if header.shard_bytes < state.options.small_bytes:
        with state.log.appending(layout.KIND_SHARD, layout.pack_header(header), parts) as place:
            state.index.set(header.shard, Entry(bare, place))
        return
    _let_go(state, header.shard)
    token = secrets.randbelow(2**32)
    handle, size_bytes = state.wholes.write(header, parts, token)
    with state.mutex:
        state.fresh[header.shard] = Fresh(handle, size_bytes)
    state.index.set(header.shard, Entry(bare, Place(IN_FILES, token, size_bytes)))


def _let_go(state: DiskState, shard: ShardId) -> None:
    """Have nothing to do any more with a file that is about to be removed or replaced; the shard's lock is held."""
    with state.mutex:
        fresh = state.fresh.pop(shard, None)
    if fresh is not None and fresh.handle is not None:
        state.files.close(fresh.handle)


def _bury(state: DiskState, old: Entry) -> None:
    """Tell the log that a damaged shard was replaced, and remove its file unless the new one took its name."""
    shard, place = old.header.shard, old.place
    if place.segment == IN_FILES:
        state.file_handles.forget((shard, place.offset))
        now = state.index.get(shard)
        if now is None or now.place.segment == IN_FILES:
            return
    _bury_all(state, [old])
    if place.segment == IN_FILES:
        state.log.group.wait()
        _unlink(state, [old])


def _bury_all(state: DiskState, entries: Sequence[Entry], *, forget: bool = False) -> None:
    tell_gone(state, [layout.Gone(e.header.shard, e.place.segment, e.place.offset) for e in entries], forget=forget)


def tell_gone(state: DiskState, removals: Sequence[layout.Gone], *, forget: bool = False) -> None:
    """Append a record of removals; with `forget` the index forgets the shards as well."""
    names = Counter(removal.segment for removal in removals)
    with state.mutex:
        state.unlinking |= {(g.shard, g.offset) for g in removals if g.segment == IN_FILES}
    with state.log.appending(layout.KIND_GONE, b"", [layout.pack_gone(removals)]) as place:
        state.index.note_gone(place.segment, dict(names))
        for removal in removals if forget else ():
            state.index.set(removal.shard, None)


def _unlink(state: DiskState, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.place.segment == IN_FILES:
            shard = entry.header.shard
            _let_go(state, shard)
            state.wholes.unlink(shard)
            state.file_handles.forget((shard, entry.place.offset))
            with state.mutex:
                state.folders_dirty.add(state.wholes.folder_of(shard))
                state.unlinking.discard((shard, entry.place.offset))
                state.unlinked.add((shard, entry.place.offset))


def remove(state: DiskState, shards: Sequence[ShardId]) -> None:
    """Remove shards, durably; see ShardHolder."""
    there = sorted(set(shards))
    with state.writing():
        for start in range(0, len(there), _REMOVED_AT_ONCE):
            some = there[start : start + _REMOVED_AT_ONCE]
            with state.locks.hold_all(some):
                entries = [entry for shard in some if (entry := state.index.get(shard)) is not None]
                if entries:
                    _remove(state, entries)
    _see_to_much_waiting(state)


def _remove(state: DiskState, entries: list[Entry]) -> None:
    try:
        _bury_all(state, entries, forget=True)
    except NoSpaceError:
        _remove_on_a_full_disk(state, entries)
        return
    state.log.group.wait()
    _unlink(state, entries)


def _remove_on_a_full_disk(state: DiskState, entries: list[Entry]) -> None:
    """Remove files first: that needs no room, and makes some for the record of the rest."""
    in_files = [entry for entry in entries if entry.place.segment == IN_FILES]
    for entry in in_files:
        state.index.set(entry.header.shard, None)
    _unlink(state, in_files)
    state.folder_group.wait()
    rest = [entry for entry in entries if entry.place.segment != IN_FILES]
    if rest:
        _bury_all(state, rest, forget=True)
        state.log.group.wait()


def sync(state: DiskState, shards: Sequence[ShardId]) -> None:
    """Return when shards survive a power failure; see ShardHolder."""
    with state.writing():
        waits = files = False
        for shard in shards:
            entry = state.index.get(shard)
            if entry is None:
                raise NotFoundError("no such shard", where=f"{shard} on {state.where}")
            if entry.place.segment == IN_FILES:
                files = _finish(state, shard) or files
            else:
                waits = waits or not state.log.is_synced(entry.place)
        if waits:
            state.log.group.wait()
        if files:
            state.folder_group.wait()
            _forget_named(state, shards)


def _finish(state: DiskState, shard: ShardId) -> bool:
    """Make a large shard's bytes durable; return whether its folder must be synced for its name."""
    with state.locks.hold(shard):
        with state.mutex:
            fresh = state.fresh.get(shard)
            handle = None if fresh is None else fresh.handle
            if fresh is None:
                return False
        if fresh.failed:
            raise SyncFailedError("sync of a shard failed", where=f"{shard} on {state.where}")
        if handle is not None:
            fresh.failed = True
            fresh.handle = None
            state.wholes.finish(shard, handle)
            fresh.failed = False
        with state.mutex:
            state.folders_dirty.add(state.wholes.folder_of(shard))
    return True


def _forget_named(state: DiskState, shards: Sequence[ShardId]) -> None:
    with state.mutex:
        for shard in shards:
            fresh = state.fresh.get(shard)
            if fresh is not None and fresh.handle is None:
                del state.fresh[shard]


def checkpoint(state: DiskState, *, clean: bool = False) -> None:
    """Make everything durable, and then the index; `clean` when nothing will change any more. Raises StoreError."""
    with state.writing(), state.checkpointing:
        if clean and state.log.appended:
            state.log.group.wait()
            with state.log.appending(layout.KIND_MARK, b"", []):
                state.log.appended = False  # the mark says that all before it is durable
        with state.index.changing() as facts:
            _note_ends(state, facts)
            facts.clean = clean
        state.index.commit(prepare=lambda: _sync_all(state))


def _note_ends(state: DiskState, facts: Facts) -> None:
    number, end = state.log.settled()
    for sealed, sealed_end in list(state.log.sealed.items()):
        state.index.segment(sealed).end = sealed_end
    if number and end:
        known = state.index.segment(number)
        known.end = max(known.end, end)
    facts.last_segment = max(facts.last_segment, number)


def _sync_all(state: DiskState) -> None:
    with state.mutex:
        shards = list(state.fresh)
        unlinked = set(state.unlinked)
    for shard in shards:
        _finish(state, shard)
    state.log.group.wait()
    state.folder_group.wait()
    _forget_named(state, shards)
    with state.mutex:
        state.unlinked -= unlinked


def _see_to_much_waiting(state: DiskState) -> None:
    """Have a checkpoint when too much waits for one; whoever comes while one runs goes on."""
    with state.mutex:
        loose_bytes = sum(fresh.size_bytes for fresh in state.fresh.values())
    if loose_bytes < state.options.loose_bytes_max and state.index.uncommitted() < state.options.changes_max:
        return
    if state.checkpointing.locked() or state.read_only:
        return
    try:
        checkpoint(state)
    except NoSpaceError:
        # What was asked for is done. The changes stay in memory, which must have a bound.
        if state.index.uncommitted() >= _OVERDUE * state.options.changes_max:
            raise
