"""Whether the bytes of a volume are on the disks of its cluster: what files show, held against what disks tell.

Both come in the order of slices' numbers, so nothing is kept in memory but what is wrong. The rows are of one revision
and the disks are asked while the volume is in use: what seems to be wrong is held against the newest metadata before it
is told, for a file may have been removed, or written, meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.cluster import ClusterStore
from stoker.fs.cluster.repairing import Seen
from stoker.fs.disk.interface import ShardId
from stoker.fs.meta import keys
from stoker.fs.meta.calls import LOST, USED, JudgeSlices
from stoker.fs.meta.fsck import Fault
from stoker.fs.meta.kv import Snapshot
from stoker.fs.meta.records import unpack_attr, unpack_entry
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice, unpack_extents

_JUDGED_AT_ONCE: Final = 1000
_PAIRS: Final = 10_000
_NAMES_MAX: Final = 10
_DEPTH_MAX: Final = 4096
_ON_DISKS: Final = "slices that files show are on disks"
_READABLE: Final = "slices can be read"
_ABSENCE: Final = {_ON_DISKS, _READABLE}
Check = Callable[[int, ShardId], int | None]
"""Reads a shard on a disk through, and gives its first damaged cell, None for a sound one."""


class Proven(msgspec.Struct):
    """What was found: faults, slices and bytes that files show, how many of them wait for a repair, and garbage.

    `orphans` are slices that nobody shows and nobody can: the collection of garbage removes them.
    """

    faults: list[Fault] = []
    slices: int = 0
    bytes: int = 0
    exposed: int = 0
    orphans: int = 0
    orphan_bytes: int = 0


def check_cluster(
    metadata: Metadata, store: ClusterStore, snapshot: Snapshot, used: Iterable[Slice], check: Check | None = None
) -> Proven:
    """Return what is wrong with the bytes that files show; `used` are their slices by number, as of the snapshot.

    With `check` every shard is read through by the disk that has it, against its checksums: no byte travels.
    """
    done = Proven()
    silent: list[int] = []
    wrong: list[tuple[Slice, Fault]] = []
    strangers: list[Slice] = []
    for shown, seen in side_by_side(used, store.examine(silent=silent)):
        if shown is None and seen is not None:
            strangers.append(seen.slice)
        elif shown is not None:
            done.slices += 1
            done.bytes += shown.size_bytes
            done.exposed += seen is not None and seen.needs_repair
            wrong += [(shown, fault) for fault in faults_of(shown, seen, check)]
        if len(strangers) >= _JUDGED_AT_ONCE:
            _count_orphans(metadata, strangers, done)
            strangers.clear()
    _count_orphans(metadata, strangers, done)
    done.faults = _still_wrong(metadata, store, snapshot, wrong)
    done.faults += [Fault("every disk tells what it holds", f"disk {disk}", got="no answer") for disk in sorted(silent)]
    return done


def side_by_side(
    used: Iterable[Slice], held: Iterable[Seen]
) -> Iterator[tuple[Slice | None, Seen | None]]:  # fmt: skip
    """Give what files show beside what disks have of it, None where one is missing; both come in order."""
    shown_next, seen_next = iter(used), iter(held)
    shown, seen = next(shown_next, None), next(seen_next, None)
    while shown is not None or seen is not None:
        first = _key(shown) if seen is None or (shown is not None and _key(shown) <= _key(seen.slice)) else None
        if first is None:
            yield None, seen
            seen = next(seen_next, None)
        elif seen is not None and _key(seen.slice) == first:
            yield shown, seen
            shown, seen = next(shown_next, None), next(seen_next, None)
        else:
            yield shown, None
            shown = next(shown_next, None)


def _key(data: Slice | None) -> tuple[int, int]:
    assert data is not None
    return data.id, data.generation


def faults_of(shown: Slice, seen: Seen | None, check: Check | None) -> Iterator[Fault]:
    """Give what is wrong with a slice that a file shows."""
    where = f"slice {shown.id}.{shown.generation}"
    if seen is None:
        yield Fault(_ON_DISKS, where, f"{shown.size_bytes} bytes", "none")
        return
    if seen.slice.size_bytes != shown.size_bytes:
        expected, got = f"{shown.size_bytes} bytes", f"{seen.slice.size_bytes} bytes"
        yield Fault("slices have the size that files show", where, expected, got)
    if seen.spare < 0:
        yield Fault(_READABLE, where, got=f"{-seen.spare} shards too few")
    if check is None:
        return
    for index, disks in seen.disks.items():
        for disk in disks:
            if problem := _problem(check, disk, ShardId(shown.id, shown.generation, index)):
                yield Fault("shards are those that were stored", f"{where} shard {index} disk {disk}", got=problem)


def _problem(check: Check, disk: int, shard: ShardId) -> str:
    try:
        cell = check(disk, shard)
    except StokerError as error:
        return str(error)
    return "" if cell is None else f"cell {cell} is damaged"


def _verdicts(metadata: Metadata, slices: Sequence[Slice]) -> Iterator[tuple[Slice, int]]:
    for start in range(0, len(slices), _JUDGED_AT_ONCE):
        some = slices[start : start + _JUDGED_AT_ONCE]
        verdicts = metadata.run(JudgeSlices(tuple(data.id for data in some), 0)).verdicts
        yield from zip(some, verdicts, strict=True)


def _count_orphans(metadata: Metadata, strangers: Sequence[Slice], done: Proven) -> None:
    for data, verdict in _verdicts(metadata, strangers):
        if verdict == LOST:
            done.orphans += 1
            done.orphan_bytes += data.size_bytes


def _is_there(store: ClusterStore, data: Slice) -> bool:
    """Tell whether a slice can be read after all: a repair may have moved its shards while disks told of theirs."""
    try:
        return store.look(data)[1].spare >= 0
    except StokerError:
        return False


def _still_wrong(
    metadata: Metadata, store: ClusterStore, snapshot: Snapshot, wrong: Sequence[tuple[Slice, Fault]]
) -> list[Fault]:
    """Return the faults of slices that files still show, with the names of those files."""
    wrong = [(data, fault) for data, fault in wrong if fault.rule not in _ABSENCE or not _is_there(store, data)]
    distinct = list({data.id: data for data, _ in wrong}.values())
    shown = {data.id for data, verdict in _verdicts(metadata, distinct) if verdict == USED}
    if not shown:
        return []
    names = names_of(snapshot, shown)
    return [
        Fault(fault.rule, f"{fault.where} of {', '.join(names.get(data.id, ['no file']))}", fault.expected, fault.got)
        for data, fault in wrong
        if data.id in shown
    ]


def names_of(snapshot: Snapshot, slices: set[int]) -> dict[int, list[str]]:
    """Return the paths of files that show these slices, ten at most for each."""
    found: dict[int, list[str]] = {}
    after = b"i"
    while pairs := snapshot.scan(b"i", after, _PAIRS):
        for key, value in pairs:
            if key[9:10] != b"C":
                continue
            for number in {extent.id for extent in unpack_extents(value)} & slices:
                told = found.setdefault(number, [])
                name = path_of(snapshot, keys.number_in(key))
                if name not in told and len(told) < _NAMES_MAX:
                    told.append(name)
        after = pairs[-1][0]
    return found


def path_of(snapshot: Snapshot, ino: int) -> str:
    """Return one path of an inode, or its number where no name leads to it."""
    names: list[str] = []
    child = ino
    while child != keys.ROOT and len(names) < _DEPTH_MAX:
        named = _named(snapshot, child)
        if named is None:
            return f"inode {ino}"
        child, name = named
        names.append(name.decode(errors="backslashreplace"))
    return "/" + "/".join(reversed(names))


def _named(snapshot: Snapshot, ino: int) -> tuple[int, bytes] | None:
    """Return a directory that names an inode, and by which name."""
    data = snapshot.get(keys.attr_key(ino))
    if data is None:
        return None
    told = snapshot.scan(keys.parent_rows(ino), limit=1)
    parent = unpack_attr(data).parent or (keys.last_number_in(told[0][0]) if told else 0)
    after = b""
    while parent and (pairs := snapshot.scan(keys.entry_key(parent), after, _PAIRS)):
        for key, value in pairs:
            if unpack_entry(value)[0] == ino:
                return parent, keys.name_in(key)
        after = pairs[-1][0]
    return None
