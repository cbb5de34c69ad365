"""Packs of which little shows: what is left is stored anew, and shown from there, so that their room comes back.

The bytes are durable in the fresh pack before any file shows it, and one transaction swaps what shows them at that
moment: a file that was changed, cut or removed meanwhile keeps its change. Whoever is killed before that leaves a slice
that nobody shows, taken in a session that ends; the sparse packs stay in the metadata's list for the next pass.
"""

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.core.units import MiB
from stoker.fs.meta.answers import SparsePack
from stoker.fs.meta.calls import BeginSession, TakeSlices
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.pack_calls import ListSparse, Moved, Repack
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SMALL_SLICE_BYTES, SliceRange, SliceStore

SPARSE_FRACTION: Final = 0.25
REPACK_BYTES: Final = 16 * MiB
_LISTED: Final = 16
_LOOKED_AT_MAX: Final = 4096
_SESSION_NS: Final = 300 * 10**9


class Repacked(msgspec.Struct):
    """What a pass did: sparse packs emptied or left as they were, bytes stored anew, bytes of packs that nobody needs.

    `after` is where the next pass goes on, 0 at the end.
    """

    packs: int = 0
    unchanged: int = 0
    moved_bytes: int = 0
    freed_bytes: int = 0
    after: int = 0


class _Copy(msgspec.Struct):
    """What goes into one fresh pack."""

    packs: list[SparsePack]
    moved: list[Moved]
    size_bytes: int = 0


def repack(
    metadata: Metadata,
    store: SliceStore,
    *,
    fraction: float = SPARSE_FRACTION,
    budget_bytes: int = REPACK_BYTES,
    after: int = 0,
    dry_run: bool = False,
) -> Repacked:
    """Store anew what shows of packs of which at most `fraction` does, up to about `budget_bytes`, behind pack `after`.

    Raises what the metadata or the store raise: each fresh pack is shown or not, and every file is as it was.
    """
    if not 0 < fraction <= 0.5:
        raise UsageError("the fraction of a pack that shows is not within bounds", expected="above 0, at most 0.5")
    done = Repacked(after=after)
    session = 0
    try:
        for copy in _copies(_candidates(metadata, fraction, budget_bytes, done)):
            if dry_run:
                _note(done, copy, copy.packs)
                continue
            session = session or metadata.run(BeginSession(_SESSION_NS)).value
            _move_whole(metadata, store, session, copy, done)
    finally:
        if session:
            metadata.end_session(session)
    return done


def _move_whole(metadata: Metadata, store: SliceStore, session: int, copy: _Copy, done: Repacked) -> None:
    """Move what goes together; where bytes of one pack cannot be had, each pack by itself, and that one not."""
    try:
        _note(done, copy, copy.packs if _move(metadata, store, session, copy) else [])
    except (CorruptError, NotFoundError):
        if len(copy.packs) == 1:
            _note(done, copy, [])
            return
        for pack in copy.packs:
            for alone in _copies([pack]):
                _move_whole(metadata, store, session, alone, done)


def _note(done: Repacked, copy: _Copy, emptied: Sequence[SparsePack]) -> None:
    done.packs += len(emptied)
    done.unchanged += len(copy.packs) - len(emptied)
    done.moved_bytes += copy.size_bytes if emptied else 0
    done.freed_bytes += sum(one.slice.size_bytes for one in emptied)


def _candidates(metadata: Metadata, fraction: float, budget_bytes: int, done: Repacked) -> Iterator[SparsePack]:
    """Return sparse packs while the budget lasts; where the list ends, the next pass begins anew."""
    taken_bytes = looked_at = 0
    while taken_bytes < budget_bytes and looked_at < _LOOKED_AT_MAX:
        packs = metadata.run(ListSparse(done.after, _LISTED)).packs
        for pack in packs:
            done.after = pack.slice.id
            looked_at += 1
            if 0 < pack.shown_bytes <= fraction * pack.slice.size_bytes and pack.slice.size_bytes <= SMALL_SLICE_BYTES:
                taken_bytes += pack.shown_bytes
                yield pack
            if taken_bytes >= budget_bytes:
                return
        if len(packs) < _LISTED:
            done.after = 0
            return


def _copies(packs: Iterable[SparsePack]) -> Iterator[_Copy]:
    """Return what goes into fresh packs together: of one storage class, up to the size of a pack."""
    filled: dict[int, _Copy] = {}
    for pack in packs:
        kind, ranges = pack.slice.storage_class, _ranges(pack)
        copy = filled.get(kind)
        if copy is not None and copy.size_bytes + sum(length for _, length in ranges) > SMALL_SLICE_BYTES:
            yield filled.pop(kind)
            copy = None
        if copy is None:
            copy = filled[kind] = _Copy([], [])
        copy.packs.append(pack)
        for offset, length in ranges:
            copy.moved.append(Moved(pack.slice.id, pack.slice.generation, offset, length, copy.size_bytes))
            copy.size_bytes += length
    yield from filled.values()


def _ranges(pack: SparsePack) -> list[tuple[int, int]]:
    """Return which bytes of a pack show, each once however many files show them."""
    ranges: list[tuple[int, int]] = []
    for offset, length in sorted(part for holder in pack.holders for part in holder.parts):
        end = sum(ranges[-1]) if ranges else -1
        if offset > end:
            ranges.append((offset, length))
        elif offset + length > end:
            ranges[-1] = (ranges[-1][0], offset + length - ranges[-1][0])
    return ranges


def _move(metadata: Metadata, store: SliceStore, session: int, copy: _Copy) -> bool:
    """Store a fresh pack and show it; tell whether anything still showed what it holds."""
    if not copy.moved:
        return False
    slices = {pack.slice.id: pack.slice for pack in copy.packs}
    parts = store.read([SliceRange(slices[one.id], one.offset, one.length) for one in copy.moved])
    number = metadata.run(TakeSlices(1), session=session).value
    kind = copy.packs[0].slice.storage_class
    fresh = Slice(number, 0, copy.size_bytes, kind)
    store.write(fresh, parts, durable=True)
    holders = {(holder.ino, holder.index) for pack in copy.packs for holder in pack.holders if holder.parts}
    try:
        metadata.run(Repack(fresh, tuple(copy.moved), tuple(sorted(holders))), session=session)
    except MetaError as error:
        if error.errno != errno.EAGAIN:
            raise
        return False
    return True
