"""How one map becomes the next: groups that move remember where they were, until all of their slices have moved."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Words
from typing import Final

import msgspec
import numpy as np

from stoker.core.errors import UsageError
from stoker.fs.meta.storage_class import Domain
from stoker.fs.place.map import Before, ClusterMap, Disk, Override, Pool, checked
from stoker.fs.place.mapping import Mapping

BEFORE_MAX: Final = 8
"""So many former places of a group are kept; with more changes than that before it is settled none is dropped,
unless a disk must be given up: while it is silent nothing settles."""


def with_disks(old: ClusterMap, disks: Iterable[Disk], *, forgetting: bool = False) -> ClusterMap:
    """Return the next map, in which these disks are new or fare otherwise.

    Raises UsageError where a group would have too many former places, unless `forgetting` lets the oldest go: what is
    there is found by a search of all disks then.
    """
    found = {**old.by_id, **{disk.id: disk for disk in disks}}
    return _moved(old, tuple(found[number] for number in sorted(found)), old.pools, forgetting=forgetting)


def without_disks(old: ClusterMap, numbers: Iterable[int]) -> ClusterMap:
    """Return the next map without some disks. Raises UsageError for one that shards still belong on."""
    gone = set(numbers)
    for number in sorted(gone & old.by_id.keys()):
        if old.by_id[number].placeable:
            raise UsageError("disk is in use", where=str(number), remedy="drain it, or give it up, first")
    return _moved(old, tuple(disk for disk in old.disks if disk.id not in gone), old.pools)


def with_overrides(old: ClusterMap, pool: Pool, overrides: Iterable[Override]) -> ClusterMap:
    """Return the next map, in which a pool has these exceptions and no others."""
    changed = msgspec.structs.replace(pool, overrides=tuple(sorted(overrides)))
    return _moved(old, old.disks, tuple(changed if one.key == pool.key else one for one in old.pools))


def with_pools(old: ClusterMap, pools: Iterable[Pool]) -> ClusterMap:
    """Return the next map with these pools beside those that are there."""
    found = {pool.key: pool for pool in (*pools, *old.pools)}
    return checked(msgspec.structs.replace(old, epoch=old.epoch + 1, pools=tuple(found[key] for key in sorted(found))))


def settled(old: ClusterMap, width: int, domain: Domain, groups: Iterable[int]) -> ClusterMap:
    """Return the next map, in which groups are nowhere but where they belong: all their slices have moved."""
    done = set(groups)
    pools = []
    for pool in old.pools:
        if pool.key == (width, domain):
            kept = tuple(one for one in pool.before if one.group not in done)
            pools.append(msgspec.structs.replace(pool, before=kept))
        else:
            pools.append(pool)
    return msgspec.structs.replace(old, epoch=old.epoch + 1, pools=tuple(pools))


def _moved(
    old: ClusterMap, disks: tuple[Disk, ...], pools: tuple[Pool, ...], *, forgetting: bool = False
) -> ClusterMap:  # fmt: skip
    """Return the next map, whose pools remember where groups were that are elsewhere in it."""
    plain = msgspec.structs.replace(old, epoch=old.epoch + 1, disks=disks, pools=pools)
    was = {pool.key: pool for pool in old.pools}
    moved = [_remembering(Mapping(old, was[pool.key]), Mapping(plain, pool), forgetting=forgetting) for pool in pools]
    return checked(msgspec.structs.replace(plain, pools=tuple(moved)))


def _remembering(old: Mapping, new: Mapping, *, forgetting: bool) -> Pool:
    before = {one.group: one.rows for one in new.pool.before}
    for group in np.flatnonzero((old.table != new.table).any(axis=1)):
        number = int(group)
        row, now = old.row(number), new.row(number)
        rows = dict.fromkeys((row, *before.get(number, ())))
        rows.pop(now, None)
        if len(rows) > BEFORE_MAX and not forgetting:
            raise UsageError(
                "placement group has too many former places",
                where=f"group {number}",
                expected=f"{BEFORE_MAX} at most",
                remedy="let the repair move what is there first",
            )
        # A row that it was in before may hold slices still, be it the present one.
        before[number] = tuple(rows)[:BEFORE_MAX]
    kept = tuple(Before(group, before[group]) for group in sorted(before) if before[group])
    return msgspec.structs.replace(new.pool, before=kept)


# -- what if


class Loss(msgspec.Struct, frozen=True):
    """What the loss of some disks would mean for a pool of k data shards.

    `groups_by_spare` counts placement groups by how many shards they could lose further; below 0 bytes are lost.
    `spare_of` tells it of each group. `moved_bytes` are written to rebuild, `read_bytes` are read for it;
    `received_bytes` tells how much each disk gets.
    """

    groups_by_spare: dict[int, int]
    moved_bytes: int
    read_bytes: int
    received_bytes: dict[int, int]
    spare_of: dict[int, int] = {}


def what_if(
    cluster: ClusterMap, pool: Pool, k: int, group_bytes: Words[int, int], lost: Sequence[int]
) -> Loss:  # fmt: skip
    """Return what the loss of disks would mean; `group_bytes` are the bytes of slices by group. Changes nothing."""
    gone = set(lost)
    given_up = [
        msgspec.structs.replace(disk, health="out") if disk.id in gone else disk for disk in cluster.disks
    ]  # fmt: skip
    now = Mapping(cluster, pool)
    then = Mapping(ClusterMap(cluster.epoch + 1, tuple(given_up), cluster.pools), pool)
    by_spare: dict[int, int] = {}
    received: dict[int, int] = {}
    spare_of: dict[int, int] = {}
    moved_bytes = read_bytes = 0
    for group in range(pool.groups):
        row, later = now.row(group), then.row(group)
        slots = [slot for slot, disk in enumerate(row) if disk in gone]
        spare = pool.width - k - len(slots)
        by_spare[spare] = by_spare.get(spare, 0) + 1
        spare_of[group] = spare
        share = -(-group_bytes.get(group, 0) // k)
        if not slots or spare < 0:
            continue
        read_bytes += k * share
        for slot in slots:
            moved_bytes += share
            received[later[slot]] = received.get(later[slot], 0) + share
    return Loss(dict(sorted(by_spare.items())), moved_bytes, read_bytes, received, spare_of)


def disks_of(cluster: ClusterMap, host: str) -> list[int]:
    """Return the numbers of the disks of a host. Raises UsageError for one that has none."""
    found = [disk.id for disk in cluster.disks if disk.host == host]
    if not found:
        known = ", ".join(sorted({disk.host for disk in cluster.disks})[:20]) or "none"
        raise UsageError("no disk is in this host", where=host, expected=known)
    return found
