"""A pass over everything that the disks hold: how exposed it is, what needs a repair, which groups have settled."""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from stoker.fs.care.waiting import QUEUE_MAX, Waiting
from stoker.fs.cluster import ClusterStore
from stoker.fs.cluster.repairing import Seen
from stoker.fs.meta.calls import USED, JudgeSlices
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.storage_class import StorageClass
from stoker.fs.place import ClusterMap

Group = tuple[int, str, int]
"""A placement group: width and domain of its pool, and its number."""
_KEPT_MAX: Final = QUEUE_MAX
_JUDGED_AT_ONCE: Final = 1000


class Examined(msgspec.Struct, frozen=True):
    """What a pass has found.

    `exposure` counts slices by how many shards they could lose further; below 0 they cannot be read. `needy` need a
    repair that could do something, `waiting` are those of them that are kept: the most exposed if there are too many.
    `unsettled` groups have slices that are not in place. `silent` disks could not be asked: with any, absence proves
    nothing. `remains` are slices of too few shards that no file shows: under way, or of what was removed.
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
    remains: int = 0


class Ground(NamedTuple):
    """What a pass stands on: the metadata, the store of their slices, the classes, the clock."""

    metadata: Metadata
    store: ClusterStore
    classes: Callable[[int], StorageClass]
    clock: Callable[[], float]


def examine(ground: Ground, cluster: ClusterMap, stop: Callable[[], bool]) -> Examined | None:
    """Return what a pass over all disks that answer finds; None when it was stopped.

    Raises what the metadata raise that are asked about slices with too few shards.
    """
    metadata, store, classes, clock = ground
    began = clock()
    ruins: list[Seen] = []
    exposure: Counter[int] = Counter()
    worst: list[tuple[int, int, Seen]] = []  # the least exposed first, so that they go when there are too many
    unsettled: set[Group] = set()
    slices = size_bytes = needy = 0
    silent: list[int] = []
    for seen in store.examine(silent=silent):
        if stop():
            return None
        if seen.spare < 0:
            ruins.append(seen)
            continue
        slices += 1
        size_bytes += seen.slice.size_bytes
        exposure[seen.spare] += 1
        if not seen.needs_repair:
            continue
        unsettled.add((*seen.pool, seen.group))
        if not seen.can_repair:
            continue
        needy += 1
        entry = (-seen.spare, -needy, seen)
        if len(worst) < _KEPT_MAX:
            heapq.heappush(worst, entry)
        else:
            heapq.heappushpop(worst, entry)
    used = used_of(metadata, ruins)
    lost = [seen for seen in ruins if seen.slice.id in used]
    exposure.update(seen.spare for seen in lost)
    unsettled.update((*seen.pool, seen.group) for seen in lost)
    waiting = [
        Waiting(seen.slice, seen.spare, began, cost_of(seen, classes(seen.slice.storage_class)))
        for _, _, seen in sorted(worst, reverse=True)
    ]
    return Examined(
        cluster.epoch, began, slices + len(lost), size_bytes + sum(seen.slice.size_bytes for seen in lost),
        dict(sorted(exposure.items())), waiting, needy, unsettled, tuple(silent), len(ruins) - len(lost),
    )  # fmt: skip


def used_of(metadata: Metadata, seen: Sequence[Seen]) -> set[int]:
    """Return the numbers of slices that files show: others are under way, or remains of what was removed."""
    found: set[int] = set()
    for start in range(0, len(seen), _JUDGED_AT_ONCE):
        ids = tuple(one.slice.id for one in seen[start : start + _JUDGED_AT_ONCE])
        verdicts = metadata.run(JudgeSlices(ids, 0)).verdicts
        found.update(number for number, verdict in zip(ids, verdicts, strict=True) if verdict == USED)
    return found


def cost_of(seen: Seen, made: StorageClass) -> int:
    """Return about how many bytes the repair of a slice moves."""
    shape = made.shape(seen.slice.size_bytes)
    shard_bytes = -(-seen.slice.size_bytes // shape.k)
    decoded = [index for index in seen.missing if index not in seen.disks]
    copied = len(seen.missing) - len(decoded)
    return shard_bytes * (2 * copied + (shape.k + len(decoded) if decoded else 0))
