"""From a map to disks: pure functions. A slice's number gives its placement group, a group a disk for each slot.

Slots are positions: shard j stays shard j, and a disk that is given up is replaced in its slot alone. First all disks
are drawn for, whatever their state; then exceptions are made; then the slots whose disk is given up or draining are
drawn for once more, among those that are left. So a disk that goes moves only what was on it, and one that is silent
for a while moves nothing. In each round every slot without a disk draws a failure domain, and a disk in it; who meets
a domain that is taken tries again in the next round. Where there are fewer domains than slots, domains take several,
as few as possible, and the mapping is degraded.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.fs.meta.storage_class import Domain
from stoker.fs.place.map import NO_DISK, ClusterMap, Disk, Pool
from stoker.fs.place.straw import NEVER, draw, draw_many, mix_many, name_number, seed_of

Table = NDArray[np.uint32]
_ROUNDS: Final = 6
_SECOND_PASS: Final = 64
STAND_INS_MAX: Final = 3
_GROUP, _ITEM, _SLOT, _DISK = range(4)
_CELLS_MAX: Final = 1 << 16


class Domains:
    """The failure domains of some disks at one level, in the order of their names, and how many slots each takes."""

    def __init__(self, disks: Sequence[Disk], level: Domain, width: int) -> None:
        by_name: dict[str, list[Disk]] = {}
        for disk in disks:
            by_name.setdefault(disk.domain(level), []).append(disk)
        self.names = sorted(by_name)
        self.members = [by_name[name] for name in self.names]
        self.seeds = [seed_of(_ITEM, name_number(name)) for name in self.names]
        self.weights = [sum(disk.weight for disk in members) for members in self.members]
        self.disk_cap = -(-width // len(disks)) if disks else 0
        self.caps = self._capacities(width)

    def _capacities(self, width: int) -> list[int]:
        """Return how many slots each domain takes: as few as will do."""
        rooms = [len(members) * self.disk_cap for members in self.members]
        cap = 1
        while rooms and sum(min(cap, room) for room in rooms) < width:
            cap += 1
        return [min(cap, room) for room in rooms]

    @property
    def is_short(self) -> bool:
        """Tell whether some domain must take more than one slot."""
        return max(self.caps, default=2) > 1


# -- one group at a time


def draw_group(domains: Domains, group: int, row: list[int], first_round: int = 0) -> list[int]:
    """Return a group's row with a disk in each slot that has none (NO_DISK); the plain twin of `draw_table`."""
    slots = list(row)
    place = {disk.id: at for at, members in enumerate(domains.members) for disk in members}
    for turn in range(_ROUNDS + 1):
        for slot, disk in enumerate(slots):
            if disk != NO_DISK or not domains.names:
                continue
            counts = [sum(place.get(one) == at for one in slots) for at in range(len(domains.names))]
            seed = seed_of(_GROUP, group) ^ seed_of(_SLOT, slot << 8 | first_round + turn)
            draws = [draw(seed ^ s, w) for s, w in zip(domains.seeds, domains.weights, strict=True)]
            if turn == _ROUNDS:
                draws = [
                    one if count < cap else NEVER
                    for one, count, cap in zip(draws, counts, domains.caps, strict=True)
                ]  # fmt: skip
            winner = min(range(len(draws)), key=lambda at: (draws[at], at))
            if counts[winner] < domains.caps[winner]:
                slots[slot] = _draw_disk(domains, winner, seed, slots)
    return slots


def _draw_disk(domains: Domains, winner: int, seed: int, slots: Sequence[int]) -> int:
    found = [
        (draw(seed ^ seed_of(_DISK, disk.id), disk.weight if slots.count(disk.id) < domains.disk_cap else 0), disk.id)
        for disk in domains.members[winner]
    ]
    return min(found)[1]


# -- all groups at once


class _Arrays:
    """The domains as arrays; disks of a domain are a row, filled up with disks of no weight."""

    def __init__(self, domains: Domains) -> None:
        self.count = len(domains.names)
        self.seeds = np.array(domains.seeds, np.uint64)
        self.weights = np.array(domains.weights, np.uint64)
        self.caps = np.array(domains.caps, np.int16)
        self.disk_cap = domains.disk_cap
        room = max(len(members) for members in domains.members)
        self.disks = np.full((self.count, room), NO_DISK, np.uint32)
        self.disk_seeds = np.zeros((self.count, room), np.uint64)
        self.disk_weights = np.zeros((self.count, room), np.uint64)
        for at, members in enumerate(domains.members):
            for column, disk in enumerate(members):
                self.disks[at, column] = disk.id
                self.disk_seeds[at, column] = seed_of(_DISK, disk.id)
                self.disk_weights[at, column] = disk.weight
        known = sorted((disk.id, at) for at, members in enumerate(domains.members) for disk in members)
        self.known = np.array([number for number, _ in known], np.uint32)
        self.known_at = np.array([at for _, at in known], np.int64)

    def counts(self, table: Table) -> NDArray[np.int16]:
        """Return how many slots of each group each domain has."""
        counts = np.zeros((len(table), self.count), np.int16)
        for column in table.T:
            at = np.minimum(np.searchsorted(self.known, column), len(self.known) - 1)
            rows = np.flatnonzero(self.known[at] == column)
            counts[rows, self.known_at[at[rows]]] += 1
        return counts


def draw_table(domains: Domains, table: Table, first_round: int = 0, first_group: int = 0) -> Table:
    """Return a table of groups with a disk in each slot that has none."""
    if not domains.names or not (table == NO_DISK).any():
        return table.copy()
    arrays = _Arrays(domains)
    step = max(_CELLS_MAX // arrays.count, 1)
    pieces = [
        _draw_rows(arrays, table[at : at + step], first_round, first_group + at) for at in range(0, len(table), step)
    ]
    return np.concatenate(pieces)


def _draw_rows(arrays: _Arrays, rows: Table, first_round: int, first_group: int) -> Table:
    table = rows.copy()
    numbers = np.arange(first_group, first_group + len(table), dtype=np.uint64)
    group_seeds = mix_many((numbers * np.uint64(4) + np.uint64(_GROUP + 1)) * np.uint64(0x9E3779B97F4A7C15))
    counts = arrays.counts(table)
    for turn in range(_ROUNDS + 1):
        for slot in range(table.shape[1]):
            waiting = np.flatnonzero(table[:, slot] == NO_DISK)
            if not len(waiting):
                continue
            seeds = group_seeds[waiting] ^ np.uint64(seed_of(_SLOT, slot << 8 | first_round + turn))
            draws = draw_many(seeds[:, None] ^ arrays.seeds, arrays.weights)
            if turn == _ROUNDS:
                draws[counts[waiting] >= arrays.caps] = NEVER
            winners = draws.argmin(axis=1)
            free = counts[waiting, winners] < arrays.caps[winners]
            waiting, winners, seeds = waiting[free], winners[free], seeds[free]
            table[waiting, slot] = _draw_disks(arrays, table[waiting], winners, seeds)
            counts[waiting, winners] += 1
    return table


def _draw_disks(arrays: _Arrays, rows: Table, winners: NDArray[np.intp], seeds: NDArray[np.uint64]) -> Table:
    disks = arrays.disks[winners]
    taken = (rows[:, :, None] == disks[:, None, :]).sum(axis=1) >= arrays.disk_cap
    weights = np.where(taken, np.uint64(0), arrays.disk_weights[winners])
    best = draw_many(seeds[:, None] ^ arrays.disk_seeds[winners], weights).argmin(axis=1)
    found: Table = disks[np.arange(len(disks)), best]
    return found


# -- a pool of a map


_tables: Final[OrderedDict[object, Table]] = OrderedDict()
_tables_lock: Final = Lock()
_TABLES_MAX: Final = 16


def _kept(key: object, make: Callable[[], Table]) -> Table:
    """Return a table that was made for the same facts; most maps differ from the last one in a disk's health alone."""
    with _tables_lock:
        if key in _tables:
            _tables.move_to_end(key)
            return _tables[key]
    table = make()
    table.flags.writeable = False
    with _tables_lock:
        _tables[key] = table
        while len(_tables) > _TABLES_MAX:
            _tables.popitem(last=False)
    return table


class Mapping:
    """Where the shards of one pool are, by one map. What is asked for once is kept."""

    def __init__(self, cluster: ClusterMap, pool: Pool) -> None:
        self.cluster = cluster
        self.pool = pool
        every = [disk for disk in cluster.disks if disk.weight]
        self._all = Domains(every, pool.domain, pool.width)
        self._placeable = Domains([disk for disk in every if disk.placeable], pool.domain, pool.width)
        self._before = {one.group: one.rows for one in pool.before}

    @property
    def degraded(self) -> str:
        """Say why shards of one slice share failure domains, or have no place; empty when they do not."""
        there, width, level = len(self._placeable.names), self.pool.width, self.pool.domain
        return f"{width} shards on {there} of the level {level}" if self._placeable.is_short else ""

    @cached_property
    def drawn(self) -> Table:
        """The table as it is drawn over all disks, whatever their state."""
        standing = tuple((disk.id, disk.weight, disk.domain(self.pool.domain)) for disk in self.cluster.disks)
        return _kept(
            (standing, self.pool.key, self.pool.bits),
            lambda: draw_table(self._all, np.full((self.pool.groups, self.pool.width), NO_DISK, np.uint32)),
        )

    @cached_property
    def table(self) -> Table:
        """A disk for each slot of each group; NO_DISK where there is none."""
        pool = self.pool
        facts = tuple((d.id, d.weight, d.domain(pool.domain), d.placeable) for d in self.cluster.disks)
        return _kept((facts, pool.key, pool.bits, pool.overrides), self._placed)

    def _placed(self) -> Table:
        table = self.drawn.copy()
        good = {disk.id for members in self._placeable.members for disk in members}
        for one in self.pool.overrides:
            if one.disk in good and self._fits(table[one.group], one.slot, one.disk):
                table[one.group, one.slot] = one.disk
        table[~np.isin(table, np.array(sorted(good), np.uint32))] = NO_DISK
        return draw_table(self._placeable, table, _SECOND_PASS)

    def _fits(self, row: Table, slot: int, disk: int) -> bool:
        """Tell whether an exception keeps the shards of a group as far apart as they were."""
        if disk in row:
            return False
        by_id, level = self.cluster.by_id, self.pool.domain
        others = [by_id[int(one)].domain(level) for at, one in enumerate(row) if at != slot and int(one) in by_id]
        here = by_id[disk].domain(level)
        was = by_id[int(row[slot])].domain(level) if int(row[slot]) in by_id else ""
        return here == was or here not in others

    def row(self, group: int) -> tuple[int, ...]:
        """Return the disks of a group, one for each slot."""
        return tuple(int(disk) for disk in self.table[group])

    def before(self, group: int) -> tuple[tuple[int, ...], ...]:
        """Return where a group that moves was, newest first."""
        return self._before.get(group, ())

    def stand_ins(self, group: int) -> tuple[int, ...]:
        """Return disks that stand in for those of a group that cannot be written: in further failure domains.

        They follow from the disks there are, not from their state: who reads finds what a writer put there.
        """
        drawn = [int(disk) for disk in self.drawn[group]]
        free = len(self._all.names) - len(drawn)
        extra = min(max(free, 0), STAND_INS_MAX)
        return tuple(draw_group(self._all, group, [*drawn, *[NO_DISK] * extra])[len(drawn) :]) if extra else ()

    def homes(self, group: int, slot: int) -> Iterator[int]:
        """Return the disks where a slot's shard is looked for in turn: where it belongs, and where it was."""
        seen = {NO_DISK}
        for row in (self.row(group), *self.before(group)):
            if row[slot] not in seen and row[slot] in self.cluster.by_id:
                seen.add(row[slot])
                yield row[slot]
