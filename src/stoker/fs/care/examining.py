"""A pass over everything that the disks hold: how exposed it is, what needs a repair, which groups have settled."""

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from stoker.fs.care.waiting import QUEUE_MAX, Waiting
from stoker.fs.cluster import ClusterStore
from stoker.fs.cluster.repairing import Seen
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap

Group = tuple[int, str, int]
"""A placement group: width and domain of its pool, and its number."""
_KEPT_MAX: Final = QUEUE_MAX


class Examined(msgspec.Struct, frozen=True):
    """What a pass has found.

    `exposure` counts slices by how many shards they could lose further; below 0 they cannot be read. `waiting` are
    those that need a repair, the most exposed if there are too many. `unsettled` groups have some. `silent` disks
    could not be asked: with any, absence proves nothing.
    """

    epoch: int
    began: float
    slices: int
    bytes: int
    exposure: dict[int, int]
    waiting: list[Waiting]
    needy: int
    unsettled: set[Group]
    silent: tuple[int, ...]


def examine(
    store: ClusterStore,
    cluster: ClusterMap,
    classes: Callable[[int], StorageClass],
    clock: Callable[[], float],
    stop: Callable[[], bool],
) -> Examined | None:
    """Return what a pass over all disks that answer finds; None when it was stopped."""
    began = clock()
    exposure: Counter[int] = Counter()
    worst: list[tuple[int, int, Seen]] = []  # the least exposed first, so that they go when there are too many
    unsettled: set[Group] = set()
    slices = size_bytes = needy = 0
    silent: list[int] = []
    for seen in store.examine(silent=silent):
        if stop():
            return None
        slices += 1
        size_bytes += seen.slice.size_bytes
        exposure[seen.spare] += 1
        if not seen.needs_repair:
            continue
        needy += 1
        if seen.spare >= 0:  # one that cannot be read, such as a write that was given up, has nothing to move
            unsettled.add((*seen.pool, seen.group))
        entry = (-seen.spare, -needy, seen)
        if len(worst) < _KEPT_MAX:
            heapq.heappush(worst, entry)
        else:
            heapq.heappushpop(worst, entry)
    waiting = [
        Waiting(seen.slice, seen.spare, began, cost_of(seen, classes(seen.slice.storage_class)))
        for _, _, seen in sorted(worst, reverse=True)
        if seen.spare >= 0
    ]
    return Examined(
        cluster.epoch, began, slices, size_bytes, dict(sorted(exposure.items())), waiting, needy, unsettled,
        tuple(silent),
    )  # fmt: skip


def cost_of(seen: Seen, made: StorageClass) -> int:
    """Return about how many bytes the repair of a slice moves."""
    shape = made.shape(seen.slice.size_bytes)
    shard_bytes = -(-seen.slice.size_bytes // shape.k)
    decoded = [index for index in seen.missing if index not in seen.disks]
    copied = len(seen.missing) - len(decoded)
    return shard_bytes * (2 * copied + (shape.k + len(decoded) if decoded else 0))
