"""A cluster with its care through random bad days, by seeds: what can be read is, and in the end all is whole again."""

import random
from pathlib import Path

import msgspec
import pytest
from care_place import CaredFor

from stoker.core.errors import NoSpaceError, StokerError, UnavailableError, UsageError
from stoker.fs.care.orders import change_map, evened
from stoker.fs.meta.calls import PutMap
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import coded
from stoker.fs.place.map import pack_map

CLASS = msgspec.structs.replace(coded("code", 4, 2, cell_bytes=4096), small_bytes=1000)


_REBALANCED_AT = 60
"""At which step the cluster is evened out: a search that takes its time, so not in the quick run."""


class BadDays:
    """One run: what was written, and what happens next."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = CaredFor(folder, 8, CLASS, masters=2, out_seconds=30)
        self.slices: list[Slice] = []
        self.happened: list[str] = []
        self.cluster.live(5)

    def survives(self, dead: set[int]) -> bool:
        """Tell whether every slice has enough shards on the disks that would live."""
        shards: dict[int, set[int]] = {data.id: set() for data in self.slices}
        for at, counted in enumerate(self.cluster.disks):
            if at not in dead:
                for header in counted.disk.listing(None, 10_000).headers:
                    shards.setdefault(header.shard.slice_id, set()).add(header.shard.index)
        needed = {data.id: CLASS.shape(data.size_bytes).k for data in self.slices}
        return all(len(shards[number]) >= k for number, k in needed.items())

    def kill(self) -> None:
        at = self.random.randrange(len(self.cluster.disks))
        if len(self.cluster.dead) < 2 and self.survives({*self.cluster.dead, at}):
            self.cluster.dead.add(at)

    def revive(self) -> None:
        if self.cluster.dead:
            at = self.random.choice(sorted(self.cluster.dead))
            self.cluster.dead.discard(at)
            self.cluster.runs[at] = f"run-{at}-{self.cluster.now}"

    def write(self) -> None:
        size = self.random.choice([500, 5000, 40_000])
        try:
            self.slices += self.cluster.written(1, size)
        except (UnavailableError, NoSpaceError):
            self.happened.append("  (not acknowledged)")
        self.cluster.care.noted([one.slice for one in self.cluster.store.take_short()])

    def read(self) -> None:
        if self.slices:
            self.cluster.readable(self.random.sample(self.slices, min(3, len(self.slices))))

    def drain(self) -> None:
        at = self.random.randrange(8)
        try:
            self.cluster.set(at, draining=self.random.random() < 0.3)
        except (UsageError, StokerError):
            self.happened.append("  (too many moves)")

    def rebalance(self) -> None:
        try:
            change_map(self.cluster.volume, lambda there: evened(there)[0])
        except UsageError:
            self.happened.append("  (too many moves)")

    def another_leads(self) -> None:
        self.cluster.leader = 1 - self.cluster.leader
        self.cluster.live(1)

    def jump(self) -> None:
        self.cluster.now += self.random.choice([2, 20, 2000])

    def rival(self) -> None:
        """Somebody puts a map that differs in nothing but its epoch."""
        there = self.cluster.map
        same = msgspec.structs.replace(there, epoch=there.epoch + 1)
        self.cluster.volume.run(PutMap(there.epoch, same.epoch, pack_map(same)))

    def live(self) -> None:
        self.cluster.live(self.random.choice([1, 5, 15, 45]))
        self.cluster.maps.refresh()

    def go(self, steps: int) -> None:
        doings = [self.kill, self.revive, self.write, self.write, self.read, self.drain, self.another_leads]
        doings += [self.jump, self.rival, self.live, self.live, self.live]
        for step in range(steps):
            doing = self.rebalance if step == _REBALANCED_AT else self.random.choice(doings)
            self.happened.append(doing.__name__)
            doing()
            self.cluster.readable(self.slices)

    def end(self) -> None:
        """All disks come back, and nobody drains any more: everything is whole."""
        self.cluster.dead = set()
        self.cluster.live(320)  # who went down often must answer for a while
        for at in range(8):
            for _ in range(20):
                try:
                    self.cluster.set(at, draining=False)
                    break
                except UsageError:
                    self.cluster.live(10)
        self.cluster.settle()
        seen = [one for one in self.cluster.store.examine() if one.slice in self.slices]
        assert len(seen) == len(self.slices)
        assert not [one for one in seen if one.needs_repair]
        self.cluster.readable(self.slices)
        assert {disk.health for disk in self.cluster.map.disks} == {"up"}
        self.cluster.close()


def run(folder: Path, seed: int, steps: int) -> BadDays:
    days = BadDays(folder, seed)
    try:
        days.go(steps)
        days.end()
    except BaseException as error:
        error.add_note(f"seed {seed}: {', '.join(days.happened)}")
        raise
    return days


def test_bad_days_end_well(tmp_path: Path) -> None:
    run(tmp_path, 1, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_bad_days_end_well(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 80)


@pytest.mark.slow
def test_a_seed_leads_to_the_same_end(tmp_path: Path) -> None:
    first = run(tmp_path / "first", 7, 30)
    second = run(tmp_path / "second", 7, 30)
    assert first.happened == second.happened
    assert [data.size_bytes for data in first.slices] == [data.size_bytes for data in second.slices]
