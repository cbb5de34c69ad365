"""A cluster that has bad days by a seed: disks break, fall silent, lose all, rot, fill up, drain, and come back.

Time is virtual and calls take it; everything runs in one thread. As many disks are ill at once as the policy of
acknowledgement allows for (two), so whatever was acknowledged must be read whole at any moment.
"""

import hashlib
import random
from collections import Counter

from fs_cluster import Cluster, VirtualLanes, content, readable

from stoker.core.errors import NotFoundError, StokerError, UnavailableError
from stoker.fs.cluster import Options
from stoker.fs.cluster.repairing import exposure
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SliceRange

DISKS = 16
ILL_MAX = 2
SIZES = (1, 700, 32_768, 32_769, 40_000, 100_001)


class World:
    """One run; `counts` tells how rough it was."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lanes = VirtualLanes()
        self.cluster = Cluster(DISKS, lanes=self.lanes, options=Options(linger_seconds=0.05))
        self.there: list[Slice] = []
        self.uncertain: set[Slice] = set()
        self.silent: set[int] = set()
        self.losing: set[int] = set()
        self.number = 0
        self.counts: Counter[str] = Counter()
        for holder in self.cluster.holders.values():
            holder.seconds = 0.002

    def run(self, events: int) -> str:
        """Play; return what the world has come to."""
        for _ in range(events):
            event = self.chance.choices(
                [self.write, self.read, self.remove, self.trouble, self.recover, self.repair, self.drain, self.slow],
                [30, 30, 5, 10, 10, 6, 3, 4],
            )[0]
            self.counts[event.__name__] += 1
            event()
        self.end()
        told = (sorted(self.counts.items()), self.lanes.now, [data.id for data in self.there], self.cluster.map.epoch)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    @property
    def ill(self) -> set[int]:
        return self.silent | self.losing

    def write(self) -> None:
        self.number += 1
        data = Slice(self.number, self.chance.randrange(2), self.chance.choice(SIZES), 1)
        try:
            self.cluster.store.write(data, [content(data)], durable=True)
        except (UnavailableError, NotFoundError):
            self.counts["refused writes"] += 1
            self.uncertain.add(data)
            return
        self.there.append(data)

    def read(self) -> None:
        if not self.there:
            return
        ranges = []
        for data in self.chance.choices(self.there, k=self.chance.randrange(1, 4)):
            start, end = sorted(self.chance.randrange(data.size_bytes + 1) for _ in range(2))
            ranges.append(SliceRange(data, start, end - start))
        found = self.cluster.store.read(ranges)
        wanted = [content(one.slice)[one.offset : one.offset + one.length] for one in ranges]
        assert [bytes(part) for part in found] == wanted

    def remove(self) -> None:
        if not self.there:
            return
        data = self.there.pop(self.chance.randrange(len(self.there)))
        try:
            self.cluster.store.remove([data])
        except UnavailableError:
            self.uncertain.add(data)

    def trouble(self) -> None:
        number = self.chance.randrange(DISKS)
        if len(self.ill | {number}) > ILL_MAX or self.cluster.map.by_id[number].draining:
            return
        how = self.chance.choice(["break", "down", "wipe", "rot"])
        self.counts[how] += 1
        if how == "break":
            self.cluster.holders[number].broken = "cable"
            self.silent.add(number)
        elif how == "down":
            self.cluster.holders[number].broken = "power"
            self.cluster.set(number, health="down")
            self.silent.add(number)
        elif how == "wipe":
            self.cluster.wipe(number)
            self.losing.add(number)
        else:
            for data in self.chance.choices(self.there, k=3) if self.there else []:
                self.cluster.rot(number, data)
            self.losing.add(number)

    def recover(self) -> None:
        for number in sorted(self.silent)[:1]:
            self.silent.discard(number)
            # It missed what was written meanwhile, and what was removed: ill until a repair.
            self.losing.add(number)
            self.cluster.holders[number].broken = ""
            self.cluster.set(number, health="up")

    def repair(self) -> None:
        """A pass over everything, which needs all disks; rot is found only by reading, so some passes read all."""
        if self.silent:
            for short in self.cluster.store.take_short():
                self._repair_one(short.slice)
            return
        for data in self.there:
            report = self.cluster.store.repair_slice(data, deep=True)
            assert report.spare >= 0
            self.counts["rebuilt"] += len(report.rebuilt)
            self.counts["copied"] += len(report.copied)
        assert all(report.error == "" or report.slice not in self.there for report in self.cluster.store.repair_all())
        self.losing.clear()
        self.cluster.settle()

    def _repair_one(self, data: Slice) -> None:
        try:
            self.cluster.store.repair_slice(data)
        except StokerError:
            assert data not in self.there, data

    def drain(self) -> None:
        draining = [disk.id for disk in self.cluster.map.disks if disk.draining]
        if draining:
            self.cluster.set(draining[0], draining=False)
        elif not self.ill:
            self.cluster.set(self.chance.randrange(DISKS), draining=True)

    def slow(self) -> None:
        number = self.chance.randrange(DISKS)
        self.cluster.holders[number].seconds = self.chance.choice([0.002, 0.002, 0.5])

    def end(self) -> None:
        """Let everything come back and be repaired: then nothing is missing, astray, or there that should not be."""
        while self.silent:
            self.recover()
        self.lanes.now += 60
        self.repair()
        readable(self.cluster.opened(), *self.there)
        self.cluster.store.remove(sorted(self.uncertain, key=lambda data: data.id))
        leftover = set(self.cluster.store.inventory()) - set(self.there)
        assert leftover <= self.uncertain, leftover
        seen = [one for one in self.cluster.store.examine() if one.slice in set(self.there)]
        assert len(seen) == len(self.there) and set(exposure(seen)) <= {4}
        assert not any(one.needs_repair for one in seen)
