"""Slices that no file shows any more, or never did: removed on positive evidence only.

A freed slice stands in the metadata with the inode that let it go and the moment, written by the very transaction that
took its last reference; nothing can refer to it again. A lost one was stored and never shown: the session that took its
number is over, so it never can be. Whatever is in doubt stays: a slice of an unknown taker, of a living session, or
younger than the grace; and an error ends the pass.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from stoker.core.errors import UsageError
from stoker.fs.meta.answers import FreedSlice
from stoker.fs.meta.calls import LOST, ForgetFreed, JudgeSlices, ListFreed, MergeTaken
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SliceStore

_PAGE: Final = 1000
GRACE_SECONDS: Final = 3600.0
"""Who reads a file without having it open looks again when a slice is gone; this long he need not."""


class Removed(msgspec.Struct, frozen=True):
    """A slice that was removed, or would be: of a freed one, which inode let it go, and when; 0 of a lost one."""

    slice: Slice
    why: str
    ino: int = 0
    time_ns: int = 0


class Collected(msgspec.Struct):
    """What a pass did: slices by reason, their bytes, and those that wait for their grace."""

    freed: int = 0
    lost: int = 0
    bytes: int = 0
    waiting: int = 0
    inventory: int = 0


def collect_garbage(
    metadata: Metadata,
    store: SliceStore,
    grace_seconds: float,
    *,
    now_ns: int,
    dry_run: bool = False,
    lost: bool = True,
    tell: Callable[[Removed], object] = id,
) -> Collected:
    """Remove freed slices and lost ones that are older than the grace; `tell` hears of each before it goes.

    Without `lost` the store's inventory is not looked through, so that the pass costs only what was freed.
    Raises what the metadata or the store raise: what was removed until then stays removed, all else stays.
    """
    if grace_seconds < 0:
        raise UsageError("grace is negative", got=str(grace_seconds))
    done = Collected()
    grace_ns = int(grace_seconds * 1e9)
    metadata.make_durable()  # what freed them must not be undone by a power failure once they are gone
    for page in _freed(metadata):
        old = [one for one in page if now_ns - one.time_ns >= grace_ns]
        done.waiting += len(page) - len(old)
        for one in old:
            tell(Removed(one.slice, "freed", one.ino, one.time_ns))
        done.freed += len(old)
        done.bytes += sum(one.slice.size_bytes for one in old)
        if old and not dry_run:
            store.remove([one.slice for one in old])
            # A crash before this leaves rows of slices that are gone: the next pass removes them once more.
            metadata.run(ForgetFreed(tuple(one.slice.id for one in old)))
    if lost:
        _collect_lost(metadata, store, grace_ns, done, dry_run=dry_run, tell=tell)
    if lost and not dry_run:
        _merge_taken(metadata)
    return done


def _freed(metadata: Metadata) -> Iterator[Sequence[FreedSlice]]:
    after = 0
    while page := metadata.run(ListFreed(after, _PAGE)).slices:
        yield page
        after = page[-1].slice.id


def _collect_lost(
    metadata: Metadata,
    store: SliceStore,
    grace_ns: int,
    done: Collected,
    *,
    dry_run: bool,
    tell: Callable[[Removed], object],
) -> None:
    source = store.inventory()
    while batch := list(islice(source, _PAGE)):
        done.inventory += len(batch)
        judged = metadata.run(JudgeSlices(tuple(data.id for data in batch), grace_ns))
        lost = [data for data, verdict in zip(batch, judged.verdicts, strict=True) if verdict == LOST]
        for data in lost:
            tell(Removed(data, "lost"))
        done.lost += len(lost)
        done.bytes += sum(data.size_bytes for data in lost)
        if lost and not dry_run:
            store.remove(lost)


def _merge_taken(metadata: Metadata) -> None:
    after = 0
    while after := metadata.run(MergeTaken(after)).value:
        pass
