"""Why a slice is where it is, and what the loss of disks would mean: from the map, before anything is done."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from stoker.fs.cluster import ClusterStore
from stoker.fs.cluster.repairing import Seen
from stoker.fs.meta.calls import Caller, Peek
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.meta.tree import Tree
from stoker.fs.place import NO_DISK, ClusterMap
from stoker.fs.place.changing import what_if

GroupBytes = dict[tuple[int, str, int], dict[int, int]]
"""By width, domain and k: the bytes of slices by placement group."""


class ShardAt(msgspec.Struct, frozen=True):
    """A shard: the disk it belongs on (-1 for none), where that stands and how it fares, and the disks that have it."""

    index: int
    disk: int
    host: str
    health: str
    found: tuple[int, ...]
    state: Literal["in place", "astray", "missing", "not asked"]


class Explained(msgspec.Struct, frozen=True):
    """A slice: its form, its placement group, its shards, what it could lose; `why` has a sentence for each flaw."""

    slice: Slice
    storage_class: str
    code: str
    domain: str
    group: int
    moving: bool
    spare: int
    shards: tuple[ShardAt, ...]
    why: tuple[str, ...]


def slices_of(metadata: Metadata, path: bytes, caller: Caller) -> Iterator[Slice]:
    """Return the slices that a file shows, each once. Raises MetaError for what cannot be read."""
    ino = Tree(metadata, caller).stat(path).ino
    seen = set()
    for shown in metadata.run(Peek(ino), caller=caller).shown:
        if shown.extent.id not in seen:
            seen.add(shown.extent.id)
            yield shown.extent.slice


def explain(store: ClusterStore, made: StorageClass, data: Slice) -> Explained:
    """Return why a slice is where it is; every disk that answers is asked."""
    placed, seen = store.look(data)
    cluster = placed.mapping.cluster
    shards = tuple(_shard(cluster, index, placed.row[index], seen) for index in range(placed.width))
    moving = bool(placed.mapping.before(placed.group))
    return Explained(
        data, made.name, made.text if placed.shape.k > 1 or made.k == 1 else str(placed.width), made.domain,
        placed.group, moving, seen.spare, shards, tuple(_flaws(shards, moving, placed.mapping.degraded, seen.spare)),
    )  # fmt: skip


def _shard(cluster: ClusterMap, index: int, number: int, seen: Seen) -> ShardAt:
    found = seen.disks.get(index, ())
    disk = cluster.by_id.get(number)
    state: Literal["in place", "astray", "missing", "not asked"]
    if number in found:
        state = "in place"
    elif found:
        state = "astray"
    else:
        state = "missing" if disk is None or disk.answers else "not asked"
    return ShardAt(
        index, -1 if number == NO_DISK else number, disk.host if disk else "", disk.health if disk else "none", found,
        state,
    )  # fmt: skip


def _flaws(shards: Sequence[ShardAt], moving: bool, degraded: str, spare: int) -> Iterator[str]:
    if spare < 0:
        yield f"{-spare} shards too few answer: it cannot be read now"
    for shard in shards:
        if shard.state == "missing":
            yield f"shard {shard.index} is on no disk that answers"
        elif shard.state == "not asked":
            yield f"shard {shard.index} belongs on disk {shard.disk}, which is {shard.health}"
        elif shard.state == "astray":
            yield f"shard {shard.index} is on disk {shard.found[0]}, and belongs on disk {shard.disk}"
    if moving:
        yield "its placement group is moving"
    if degraded:
        yield f"shards share failure domains: {degraded}"


# -- what if


class IfLost(msgspec.Struct, frozen=True):
    """What the loss of disks would mean for the slices of one form.

    `groups_by_spare` counts placement groups that hold something by how many shards they could lose further then;
    below 0 their bytes are lost: `lost_bytes`.
    """

    code: str
    domain: str
    bytes: int
    lost_bytes: int
    groups_by_spare: dict[int, int]
    moved_bytes: int
    read_bytes: int
    received_bytes: dict[int, int]


def group_bytes(slices: Iterable[Seen], classes: Callable[[int], StorageClass]) -> GroupBytes:
    """Return how many bytes of slices there are by form and placement group."""
    found: GroupBytes = {}
    for seen in slices:
        shape = classes(seen.slice.storage_class).shape(seen.slice.size_bytes)
        groups = found.setdefault((*seen.pool, shape.k), {})
        groups[seen.group] = groups.get(seen.group, 0) + seen.slice.size_bytes
    return found


def if_lost(cluster: ClusterMap, held: GroupBytes, lost: Sequence[int]) -> list[IfLost]:
    """Return what the loss of disks would mean, beside those that are silent already; changes nothing."""
    silent = [disk.id for disk in cluster.disks if not disk.answers and disk.health != "out"]
    gone = sorted({*lost, *silent})
    told = []
    for (width, domain, k), groups in sorted(held.items()):
        pool = next(one for one in cluster.pools if one.key == (width, domain))
        found = what_if(cluster, pool, k, groups, gone)
        told.append(
            IfLost(
                f"{k}+{width - k}" if k > 1 else str(width), domain, sum(groups.values()),
                sum(count for group, count in groups.items() if found.spare_of.get(group, 0) < 0),
                _by_spare(found.spare_of, groups), found.moved_bytes, found.read_bytes,
                {number: count for number, count in found.received_bytes.items() if number != NO_DISK},
            )
        )  # fmt: skip
    return told


def _by_spare(spare_of: dict[int, int], groups: dict[int, int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for group in groups:
        counts[spare_of[group]] = counts.get(spare_of[group], 0) + 1
    return dict(sorted(counts.items()))
