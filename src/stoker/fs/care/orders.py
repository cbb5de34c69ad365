"""What operators have done to a cluster map: drains, times to spare disks, a more even spread. Pure but for the put."""

import errno
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import numpy as np

from stoker.core.errors import TransientError, UsageError
from stoker.fs.care.maps import MapSource
from stoker.fs.meta.calls import PutMap
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.service import Metadata
from stoker.fs.place import ClusterMap, Disk, Mapping
from stoker.fs.place.balancing import balanced, fan_out
from stoker.fs.place.changing import disks_of, with_disks, with_overrides
from stoker.fs.place.map import Pool, pack_map

_ATTEMPTS: Final = 10


class Moves(msgspec.Struct, frozen=True):
    """What a changed map moves in a pool: how many of its slots are on another disk then, of how many.

    `degraded` says why shards of a slice share failure domains then; empty when they do not.
    """

    width: int
    domain: str
    slots: int
    moved_slots: int
    degraded: str


class Evenness(msgspec.Struct, frozen=True):
    """How even a pool is before and after: the fullest disk by its share, and the busiest partner of a lost disk."""

    width: int
    domain: str
    moved_slots: int
    slots: int
    fullest_before: float
    fullest_after: float
    fan_out_before: float
    fan_out_after: float


def change_map(
    metadata: Metadata, change: Callable[[ClusterMap], ClusterMap]
) -> tuple[ClusterMap, ClusterMap]:  # fmt: skip
    """Put what a change makes of the newest map; return the map before, and the one that is there now.

    The change is made anew when somebody else was faster. Raises what it raises, and NotFoundError without a map.
    """
    for _ in range(_ATTEMPTS):
        before = MapSource(metadata)()
        made = change(before)
        if made.epoch == before.epoch:
            return before, before
        try:
            metadata.run(PutMap(before.epoch, made.epoch, pack_map(made)))
        except MetaError as error:
            if error.errno == errno.ESTALE:
                continue
            raise
        return before, made
    raise TransientError("cluster map changes all the time", got=f"{_ATTEMPTS} attempts", remedy="try again")


def chosen(cluster: ClusterMap, numbers: Iterable[int], host: str) -> list[Disk]:
    """Return disks by their numbers, or those of a host. Raises UsageError for none, and those that are not there."""
    wanted = sorted({*numbers, *(disks_of(cluster, host) if host else ())})
    if not wanted:
        raise UsageError("no disk is named", expected="numbers of disks, or a host")
    for number in wanted:
        if number not in cluster.by_id:
            known = ", ".join(str(disk.id) for disk in cluster.disks[:20])
            raise UsageError("no such disk", where=str(number), expected=known or "none yet")
    return [cluster.by_id[number] for number in wanted]


def drained(cluster: ClusterMap, disks: Iterable[Disk], *, undo: bool) -> ClusterMap:
    """Return the map in which disks are emptied, or are not any more. Raises UsageError where none would be left."""
    changed = [msgspec.structs.replace(disk, draining=not undo) for disk in disks if disk.draining == undo]
    if not changed:
        return cluster
    gone = {disk.id for disk in changed} if not undo else set()
    if not any(disk.placeable for disk in cluster.disks if disk.id not in gone):
        raise UsageError("no disk would be left", got=f"{len(gone)} to be drained", remedy="add disks first")
    return with_disks(cluster, changed)


def spared(cluster: ClusterMap, disks: Iterable[Disk], until_ns: int) -> ClusterMap:
    """Return the map in which disks are not given up before a moment; 0 for no such moment."""
    changed = [msgspec.structs.replace(disk, spared_until_ns=until_ns) for disk in disks]
    return with_disks(cluster, [disk for disk in changed if disk != cluster.by_id[disk.id]])


def paused(cluster: ClusterMap, *, pause: bool) -> ClusterMap:
    """Return the map by which nothing is repaired, whoever leads, or by which repair goes on."""
    if cluster.repair_paused == pause:
        return cluster
    return msgspec.structs.replace(cluster, epoch=cluster.epoch + 1, repair_paused=pause)


def moves(before: ClusterMap, after: ClusterMap) -> list[Moves]:
    """Return what a change of the map moves."""
    found = []
    for pool in after.pools:
        was, now = Mapping(before, before.pool(pool.width, pool.domain)), Mapping(after, pool)
        moved = int((was.table != now.table).sum())
        found.append(Moves(pool.width, pool.domain, pool.groups * pool.width, moved, now.degraded))
    return found


def evened(cluster: ClusterMap) -> tuple[ClusterMap, list[Evenness]]:
    """Return the map with exceptions that make every pool even, and what that changes; the map itself if nothing."""
    made = cluster
    told = []
    for pool in cluster.pools:
        overrides = balanced(cluster, pool)
        better = msgspec.structs.replace(pool, overrides=tuple(sorted(overrides)))
        told.append(_evenness(cluster, pool, better))
        if told[-1].moved_slots:
            made = with_overrides(made, next(one for one in made.pools if one.key == pool.key), overrides)
    return (cluster if made is cluster else msgspec.structs.replace(made, epoch=cluster.epoch + 1)), told


def _evenness(cluster: ClusterMap, pool: Pool, better: Pool) -> Evenness:
    weights = {disk.id: disk.weight for disk in cluster.disks if disk.placeable}
    before = Mapping(cluster, pool).table
    after = Mapping(msgspec.structs.replace(cluster, pools=(better,)), better).table
    return Evenness(
        pool.width, pool.domain, int((before != after).sum()), before.size,
        fullest(before, weights), fullest(after, weights), fan_out(before, weights), fan_out(after, weights),
    )  # fmt: skip


def fullest(table: "np.typing.NDArray[np.uint32]", weights: dict[int, int]) -> float:
    """Return how many times its share by weight the disk holds that has most for its weight."""
    total = sum(weights.values())
    if not total or not table.size:
        return 1.0
    counts = {number: int((table == number).sum()) for number in weights}
    return max(counts[number] * total / (table.size * weight) for number, weight in weights.items() if weight)
