"""Exceptions that make a small cluster even: each disk its share, and the load of a repair spread over all others.

Drawing spreads groups evenly only where there are many for each pair of disks. When a disk is lost, those that share
groups with it are read to rebuild it: their share should be alike. The search moves one slot at a time to the disk
that brings the numbers of groups by disk, and by pair of disks, nearest to their shares, until no move helps.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.fs.place.map import NO_DISK, ClusterMap, Override, Pool
from stoker.fs.place.mapping import Mapping

_SWEEPS_MAX: Final = 6
_SHARE_WEIGHTS: Final = (0.25, 1.0, 4.0)
"""How much an uneven share counts beside uneven pairs: little first, so that pairs can be evened out by way of it."""
_SPARE_MAX: Final = 1e-9
Square = NDArray[np.float64]


def fan_out(table: NDArray[np.uint32], weights: dict[int, int]) -> float:
    """Return how uneven the worst repair is: over the loss of each disk, the busiest partner by the mean one.

    A partner's load is the groups that it shares with the lost disk, by its weight. 1.0 is even.
    """
    numbers = sorted(disk for disk, weight in weights.items() if weight)
    pairs = _pairs(_indexed(table, numbers), len(numbers))
    each = np.array([weights[number] for number in numbers], np.float64)
    worst = 1.0
    for at in range(len(numbers)):
        others = np.delete(pairs[at] / each, at)
        if others.sum():
            worst = max(worst, float(others.max() / np.average(others, weights=np.delete(each, at))))
    return worst


def _indexed(table: NDArray[np.uint32], numbers: Sequence[int]) -> NDArray[np.int64]:
    """Return the table with the places of disks among `numbers`; -1 for those that are not."""
    known = np.array(numbers, np.uint32)
    at = np.minimum(np.searchsorted(known, table), len(known) - 1)
    return np.where(known[at] == table, at, -1)


def _pairs(table: NDArray[np.int64], count: int) -> Square:
    there = np.zeros((len(table), count))
    for column in table.T:
        rows = np.flatnonzero(column >= 0)
        there[rows, column[rows]] = 1
    pairs: Square = there.T @ there
    return pairs


class _Search:
    """A table that is changed slot by slot, with what is counted in it."""

    def __init__(self, cluster: ClusterMap, pool: Pool) -> None:
        mapping = Mapping(cluster, pool)
        self.disks = [disk for disk in cluster.disks if disk.placeable]
        self.numbers = [disk.id for disk in self.disks]
        self.table = _indexed(mapping.table, self.numbers)
        names = sorted({disk.domain(pool.domain) for disk in self.disks})
        self.domains = np.array([names.index(disk.domain(pool.domain)) for disk in self.disks])
        self.domain_count = len(names)
        self.share_weight = 1.0
        self.pairs = _pairs(self.table, len(self.disks))
        weights = np.array([disk.weight for disk in self.disks], np.float64)
        share = weights / weights.sum()
        self.shares = np.minimum(share * pool.groups * pool.width, pool.groups)
        apart = self.domains[:, None] != self.domains[None, :]
        products = np.outer(share, share) * apart
        self.pair_shares = products / max(products.sum(), _SPARE_MAX) * pool.groups * pool.width * (pool.width - 1)

    def sweep(self, share_weight: float) -> int:
        """Move every slot that gains by it once; return how many moved."""
        self.share_weight = share_weight
        moved = 0
        for group in range(len(self.table)):
            for slot in range(self.table.shape[1]):
                moved += self._improve(group, slot)
        return moved

    def _improve(self, group: int, slot: int) -> bool:
        row = self.table[group]
        here = int(row[slot])
        others = np.delete(row, slot)
        if here < 0 or (others < 0).any():
            return False
        gap = self.pairs - self.pair_shares
        change = 2 * (gap[others].sum(axis=0) - gap[others, here].sum() + len(others))
        counts = np.diagonal(self.pairs) - self.shares
        change = change + self.share_weight * 2 * (counts - counts[here] + 1)
        taken = np.zeros(self.domain_count, np.bool_)
        taken[self.domains[others]] = True
        change[taken[self.domains]] = np.inf
        change[here] = np.inf
        best = int(change.argmin())
        if not change[best] < -_SPARE_MAX:
            return False
        self._move(row, slot, best, others)
        return True

    def _move(self, row: NDArray[np.int64], slot: int, best: int, others: NDArray[np.int64]) -> None:
        for disk, step in ((int(row[slot]), -1), (best, 1)):
            self.pairs[disk, others] += step
            self.pairs[others, disk] += step
            self.pairs[disk, disk] += step
        row[slot] = best


def balanced(cluster: ClusterMap, pool: Pool, sweeps: int = _SWEEPS_MAX) -> tuple[Override, ...]:
    """Return the exceptions that make a pool even, those that it has included; a pool without room stays as it is."""
    search = _Search(cluster, pool)
    if len(search.numbers) <= 1:
        return pool.overrides
    for share_weight in _SHARE_WEIGHTS:
        for _ in range(sweeps):
            if not search.sweep(share_weight):
                break
    drawn = Mapping(cluster, pool).drawn
    known = np.array(search.numbers, np.uint32)
    wanted = np.where(search.table >= 0, known[np.maximum(search.table, 0)], NO_DISK)
    differing = np.argwhere((wanted != drawn) & (wanted != NO_DISK))
    return tuple(Override(int(group), int(slot), int(wanted[group, slot])) for group, slot in differing)
