"""The invariants of a volume, recomputed from its rows: names, links, counts, slices, sessions, locks.

One walk over all keys of one snapshot; then everything that is stored twice, or counted, is held against what it was
computed from. Memory grows with the number of inodes and slices: about a kilobyte for each.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.fs.meta import keys
from stoker.fs.meta.acl import ACCESS_NAME, DEFAULT_NAME
from stoker.fs.meta.cluster_map import unpack_map_row
from stoker.fs.meta.kv import Engine, Snapshot
from stoker.fs.meta.locking import Held, in_the_way, unpack_locks
from stoker.fs.meta.records import (
    HAS_ACL,
    HAS_DATA,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    NAMES_HELD,
    Attr,
    unpack_attr,
    unpack_count,
    unpack_entry,
    unpack_freed,
    unpack_hold,
    unpack_references,
    unpack_taken,
)
from stoker.fs.meta.slices import CHUNK_BYTES, Extent, check_extents, unpack_extents
from stoker.fs.meta.storage_class import StorageClass, unpack_class

_SCAN_PAIRS: Final = 10_000
_ACL_FLAGS: Final = {ACCESS_NAME: HAS_ACL, DEFAULT_NAME: HAS_DEFAULT_ACL}


class Fault(msgspec.Struct, frozen=True):
    """Something that does not hold: which rule, where, what was expected, what is there."""

    rule: str
    where: str
    expected: str = ""
    got: str = ""


@dataclass
class _Seen:
    """What one walk over all keys has found."""

    attrs: dict[int, Attr] = field(default_factory=dict)
    entries: list[tuple[int, bytes, int, int]] = field(default_factory=list)  # parent, name, inode, kind
    parents: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    targets: dict[int, bytes] = field(default_factory=dict)
    xattrs: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    data_ends: dict[int, int] = field(default_factory=dict)
    locks: dict[int, list[Held]] = field(default_factory=dict)
    holds: set[int] = field(default_factory=set)  # directories whose names are held
    opens: set[tuple[int, int]] = field(default_factory=set)  # inode, session
    session_opens: set[tuple[int, int]] = field(default_factory=set)
    sessions: set[int] = field(default_factory=set)
    references: dict[int, int] = field(default_factory=dict)
    used: Counter[int] = field(default_factory=Counter)
    used_bytes: Counter[int] = field(default_factory=Counter)
    pack_bytes: dict[int, int] = field(default_factory=dict)
    held_bytes: Counter[int] = field(default_factory=Counter)
    sparse: set[int] = field(default_factory=set)
    freed: set[int] = field(default_factory=set)
    orphans: set[int] = field(default_factory=set)
    doomed: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)
    taken: list[tuple[int, int]] = field(default_factory=list)  # first, last number of slices
    classes: dict[int, str] = field(default_factory=dict)
    class_uses: dict[int, str] = field(default_factory=dict)  # of a class, one place that names it
    counters: dict[bytes, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def uses_class(self, storage_class: int, kind: str, number: int) -> None:
        if storage_class not in self.class_uses:
            self.class_uses[storage_class] = f"{kind} {number}"

    def wrong(self, rule: str, where: str, expected: object = "", got: object = "") -> None:
        self.faults.append(Fault(rule, where, str(expected), str(got)))


def fsck(engine: Engine, snapshot: Snapshot | None = None) -> list[Fault]:
    """Return everything that does not hold in the volume of an engine; empty for one that is sound."""
    if snapshot is None:
        with engine.snapshot() as newest:
            return fsck_rows(newest)
    return fsck_rows(snapshot)


def fsck_rows(snapshot: Snapshot) -> list[Fault]:
    """Return everything that does not hold among the rows of a snapshot."""
    seen = _Seen()
    for key, value in _all_pairs(snapshot):
        try:
            _see(seen, key, value)
        except (StokerError, msgspec.MsgspecError, struct.error) as error:
            seen.wrong("rows are readable", key.hex(), got=error)
    for check in (
        _check_names,
        _check_links,
        _check_reach,
        _check_inodes,
        _check_slices,
        _check_packs,
        _check_classes,
        _check_sessions,
        _check_counts,
    ):
        check(seen)
    return seen.faults


def _all_pairs(snapshot: Snapshot) -> Iterator[tuple[bytes, bytes]]:
    after = b""
    while pairs := snapshot.scan(b"", after, _SCAN_PAIRS):
        yield from pairs
        after = pairs[-1][0]


def _see(seen: _Seen, key: bytes, value: bytes) -> None:
    if key in (keys.VOLUME, keys.MOVED):
        return
    if key == keys.CLUSTER_MAP:
        unpack_map_row(value)
        return
    kind, number, row = key[:1], keys.number_in(key), key[9:10]
    if kind == b"i":
        _see_inode(seen, number, row, key, value)
    elif kind == b"s" and row == b"A":
        seen.sessions.add(number)
    elif kind == b"s" and row == b"O":
        seen.session_opens.add((keys.last_number_in(key), number))
    elif kind == b"s" and row in (b"K", b"R"):
        pass  # the client's affair
    elif kind in (b"r", b"g", b"t"):
        _see_slice(seen, kind, number, value)
    elif kind in (b"p", b"q"):
        _see_pack(seen, row, number, value)
    elif kind in (b"o", b"d"):
        (seen.orphans if kind == b"o" else seen.doomed).add(number)
    elif kind == b"k":
        _see_class(seen, number, unpack_class(value))
    elif kind == b"c":
        seen.counters[key] = unpack_count(value)
    else:
        seen.wrong("keys are known", key.hex())


def _see_slice(seen: _Seen, kind: bytes, number: int, value: bytes) -> None:
    if kind == b"t":
        seen.taken.append((unpack_taken(value)[0], number))
        return
    if kind == b"r":
        data, seen.references[number] = unpack_references(number, value)
    else:
        seen.freed.add(number)
        data = unpack_freed(number, value)[0]
    seen.uses_class(data.storage_class, "slice", number)


def _see_pack(seen: _Seen, row: bytes, number: int, value: bytes) -> None:
    if row == b"A":
        seen.pack_bytes[number] = unpack_count(value)
    elif row == b"H":
        seen.held_bytes[number] += unpack_count(value)
    else:
        seen.sparse.add(number)


def _see_inode(seen: _Seen, ino: int, row: bytes, key: bytes, value: bytes) -> None:
    seen.rows.add(ino)
    if row == b"A":
        seen.attrs[ino] = attr = unpack_attr(value)
        seen.uses_class(attr.storage_class, "inode", ino)
    elif row == b"D":
        seen.entries.append((ino, keys.name_in(key), *unpack_entry(value)))
    elif row == b"P":
        seen.parents[ino][keys.last_number_in(key)] = unpack_count(value)
    elif row == b"C":
        _see_chunk(seen, ino, keys.index_in(key), unpack_extents(value))
    elif row == b"T":
        seen.targets[ino] = value
    elif row == b"X":
        seen.xattrs[ino].append(keys.name_in(key))
    elif row == b"L":
        seen.locks[ino] = unpack_locks(value)
    elif row == b"O":
        seen.opens.add((ino, keys.last_number_in(key)))
    elif row == b"H":
        unpack_hold(value)
        seen.holds.add(ino)
    else:
        seen.wrong("keys are known", key.hex())


def _see_class(seen: _Seen, number: int, made: StorageClass) -> None:
    where = f"storage class {number}"
    if made.id != number:
        seen.wrong("a storage class stands under its number", where, number, made.id)
    if made.name in seen.classes.values():
        seen.wrong("storage classes differ in name", where, got=made.name)
    seen.classes[number] = made.name


def _see_chunk(seen: _Seen, ino: int, index: int, extents: list[Extent]) -> None:
    where = f"inode {ino} chunk {index}"
    if problem := check_extents(extents):
        seen.wrong("extents lie one behind the other", where, got=problem)
    if not extents:
        seen.wrong("a chunk without extents has no row", where)
        return
    seen.used.update(extent.id for extent in extents)
    for extent in extents:
        seen.used_bytes[extent.id] += extent.length
        seen.uses_class(extent.storage_class, "slice", extent.id)
    seen.data_ends[ino] = max(seen.data_ends.get(ino, 0), index * CHUNK_BYTES + extents[-1].end)


def _check_names(seen: _Seen) -> None:
    """Each entry stands for an inode of its kind, in a directory."""
    for parent, name, ino, kind in seen.entries:
        where = f"{name!r} in inode {parent}"
        attr, directory = seen.attrs.get(ino), seen.attrs.get(parent)
        if directory is None or not directory.is_directory or not directory.nlink:
            seen.wrong("entries stand in directories", where)
        if attr is None:
            seen.wrong("an entry stands for an inode", where, expected=f"inode {ino}", got="none")
        elif attr.kind != kind:
            seen.wrong("an entry tells its inode's kind", where, expected=attr.kind, got=kind)
        if not name or len(name) > 255 or b"/" in name or b"\0" in name or name in (b".", b".."):
            seen.wrong("names are allowed ones", where)


def _check_links(seen: _Seen) -> None:
    """Links, entries and parents are what the entries say."""
    named: dict[int, Counter[int]] = defaultdict(Counter)
    entries: Counter[int] = Counter()
    folders: Counter[int] = Counter()
    for parent, _, ino, kind in seen.entries:
        named[ino][parent] += 1
        entries[parent] += 1
        folders[parent] += kind == 4
    for ino, attr in seen.attrs.items():
        where, count = f"inode {ino}", sum(named[ino].values())
        if attr.is_directory:
            expected = 2 + folders[ino] if count or ino == keys.ROOT else 0
            if count > 1 or (ino == keys.ROOT and count):
                seen.wrong("a directory has one name", where, got=count)
            if attr.size_bytes != entries[ino]:
                seen.wrong("a directory counts its entries", where, entries[ino], attr.size_bytes)
        else:
            expected = count
        if attr.nlink != expected:
            seen.wrong("links are counted", where, expected, attr.nlink)
        told = {attr.parent: 1} if attr.parent and ino != keys.ROOT else seen.parents.get(ino, {})
        if dict(named[ino]) != told:
            seen.wrong("parents are those of the entries", where, dict(named[ino]), told)
        if attr.parent and ino in seen.parents:
            seen.wrong("parents are told in one way", where)
        if (not attr.nlink) != (ino in seen.orphans) or (not attr.nlink and not attr.opens):
            seen.wrong("an inode without a name is open and known as an orphan", where, got=f"{attr.opens} opens")


def _check_reach(seen: _Seen) -> None:
    """Every directory with a name is below the root, so there are no loops."""
    root = seen.attrs.get(keys.ROOT)
    if root is None or not root.is_directory:
        seen.wrong("the root is a directory", f"inode {keys.ROOT}")
        return
    below: dict[int, list[int]] = defaultdict(list)
    for parent, _, ino, kind in seen.entries:
        if kind == 4:
            below[parent].append(ino)
    reached, waiting = {keys.ROOT}, [keys.ROOT]
    while waiting:
        for ino in below[waiting.pop()]:
            if ino not in reached:
                reached.add(ino)
                waiting.append(ino)
    for ino, attr in seen.attrs.items():
        if attr.is_directory and attr.nlink and ino not in reached:
            seen.wrong("every directory is below the root", f"inode {ino}")


def _check_inodes(seen: _Seen) -> None:
    """Flags, targets and sizes fit what rows there are; no rows are left of what is gone."""
    for ino in seen.rows - seen.attrs.keys() - seen.doomed:
        seen.wrong("rows belong to an inode", f"inode {ino}")
    for ino in seen.doomed & seen.attrs.keys():
        seen.wrong("what is being freed has no attributes", f"inode {ino}")
    for ino in seen.orphans - seen.attrs.keys():
        seen.wrong("orphans have attributes", f"inode {ino}")
    for ino, attr in seen.attrs.items():
        where = f"inode {ino}"
        names = seen.xattrs.get(ino, [])
        flags = HAS_XATTR if names else 0
        for name in names:
            flags |= _ACL_FLAGS.get(name, 0)
        if attr.flags & ~(HAS_DATA | NAMES_HELD) != flags:
            seen.wrong("flags tell of extended attributes", where, flags, attr.flags & ~(HAS_DATA | NAMES_HELD))
        if bool(attr.flags & NAMES_HELD) != (ino in seen.holds) or (ino in seen.holds and not attr.is_directory):
            seen.wrong("a directory tells that its names are held", where)
        if attr.is_symlink != (ino in seen.targets) or len(seen.targets.get(ino, b"")) != (
            attr.size_bytes if attr.is_symlink else 0
        ):
            seen.wrong("a symbolic link has a target of its size", where)
        if ino in seen.data_ends and not (attr.is_file and attr.flags & HAS_DATA):
            seen.wrong("only files that say so have data", where)
        if seen.data_ends.get(ino, 0) > attr.size_bytes:
            seen.wrong("no data lies behind a file's end", where, attr.size_bytes, seen.data_ends[ino])


def _check_slices(seen: _Seen) -> None:
    """A slice is referred to as often as it is counted, and freed when nothing refers to it."""
    for slice_id in seen.used.keys() | seen.references.keys():
        count = seen.references.get(slice_id, 0)
        if count != seen.used[slice_id] or not count:
            seen.wrong("references to slices are counted", f"slice {slice_id}", seen.used[slice_id], count)
    for slice_id in seen.freed & seen.used.keys():
        seen.wrong("no freed slice is in use", f"slice {slice_id}")
    highest = max([0, *seen.used, *seen.freed])
    if highest >= seen.counters.get(keys.NEXT_SLICE, 0):
        seen.wrong("numbers of slices were taken", f"slice {highest}")
    end = 0
    for first, last in seen.taken:  # in the order of their keys
        if not end < first <= last or last >= seen.counters.get(keys.NEXT_SLICE, 0):
            seen.wrong("numbers of slices are taken once", f"slices {first} to {last}")
        end = last


def _check_packs(seen: _Seen) -> None:
    """Of each pack whose bytes are counted, as many show as are counted, in all and by chunk."""
    for slice_id in seen.pack_bytes.keys() | seen.held_bytes.keys() | seen.sparse:
        count, held = seen.pack_bytes.get(slice_id, 0), seen.held_bytes[slice_id]
        if not count == held == seen.used_bytes[slice_id]:
            expected, got = seen.used_bytes[slice_id], f"{count}, by chunk {held}"
            seen.wrong("bytes of packs that show are counted", f"slice {slice_id}", expected, got)


def _check_classes(seen: _Seen) -> None:
    """Inodes and slices name storage classes that are there, whose numbers have no gaps."""
    for number, where in seen.class_uses.items():
        if number not in seen.classes:
            seen.wrong("storage classes are there", where, got=number)
    if seen.classes.keys() != set(range(len(seen.classes))):
        seen.wrong("storage classes are numbered from 0", "classes", got=sorted(seen.classes))


def _check_sessions(seen: _Seen) -> None:
    """What is open and locked belongs to sessions, is told both ways, and no two locks exclude each other."""
    for ino, session in seen.opens ^ seen.session_opens:
        seen.wrong("what is open is told by inode and by session", f"inode {ino} session {session}")
    for ino, session in seen.opens:
        if session not in seen.sessions:
            seen.wrong("what is open belongs to a session", f"inode {ino}", got=f"session {session}")
    counted = Counter(ino for ino, _ in seen.opens)
    for ino, attr in seen.attrs.items():
        if attr.opens != counted[ino]:
            seen.wrong("sessions that have an inode open are counted", f"inode {ino}", counted[ino], attr.opens)
    for ino, locks in seen.locks.items():
        for held in locks:
            if (ino, held.session) not in seen.opens:
                seen.wrong("who has a lock has the file open", f"inode {ino}", got=held)
            if in_the_way(locks, held) is not None:
                seen.wrong("locks do not exclude each other", f"inode {ino}", got=held)
            if not 0 < held.token < seen.counters.get(keys.NEXT_TOKEN, 0):
                seen.wrong("tokens were given out", f"inode {ino}", got=held.token)


def _check_counts(seen: _Seen) -> None:
    """The volume's counters are the sums."""
    file_bytes = sum(attr.size_bytes for attr in seen.attrs.values() if attr.is_file)
    for name, key, expected in (("inodes", keys.INODES, len(seen.attrs)), ("bytes", keys.BYTES, file_bytes)):
        if seen.counters.get(key, 0) != expected:
            seen.wrong("the volume is counted", name, expected, seen.counters.get(key, 0))
    for name, key, highest in (
        ("inode", keys.NEXT_INODE, max([0, *seen.attrs])),
        ("session", keys.NEXT_SESSION, max([0, *seen.sessions])),
    ):
        if seen.counters.get(key, 0) <= highest:
            seen.wrong("the next number is a new one", name, f"above {highest}", seen.counters.get(key, 0))
