"""A disk of shards after a power failure at any step: nothing durable is lost, nothing is half there."""

import random
from pathlib import Path

import pytest
from crash_files import VOLUME, CrashFiles, CrashingDisk

from stoker.core.errors import NotFoundError
from stoker.fs.disk import ShardHeader, ShardId, cell_crcs
from stoker.fs.disk.compacting import compact
from stoker.fs.disk.index import Entry
from stoker.fs.disk.reading import opened, read_ranges
from stoker.fs.disk.state import DiskState
from stoker.fs.disk.writing import checkpoint, put, remove, sync

THERE, GONE = True, False


def content(shard: ShardId, sizes: tuple[int, ...] = (0, 300, 1700, 4400, 6000, 9000)) -> bytes:
    size_bytes = sizes[shard.slice_id % len(sizes)]
    return random.Random(str(shard)).randbytes(size_bytes)


def header_of(shard: ShardId) -> ShardHeader:
    data = content(shard)
    return ShardHeader(VOLUME, shard, 2, 1, 0, 4096, len(data), len(data), cell_crcs([data], 4096))


def is_there(state: DiskState, shard: ShardId) -> bool:
    try:
        with opened(state, shard) as source:
            found = read_ranges(state, source, [(0, source.header.shard_bytes)])[0]
            assert source.header == header_of(shard)
    except NotFoundError:
        return GONE
    assert bytes(found) == content(shard)
    return THERE


class Run:
    """Random calls to a disk, and what may be true of each shard from which step on."""

    def __init__(self, index_folder: Path, seed: int, calls: int) -> None:
        self.disk = CrashingDisk(index_folder)
        self.state = self.disk.state
        self.shards = [ShardId(number, 1, number % 3) for number in range(14)]
        self.may: dict[ShardId, frozenset[bool]] = dict.fromkeys(self.shards, frozenset({GONE}))
        self.past: list[tuple[int, dict[ShardId, frozenset[bool]]]] = [(0, dict(self.may))]
        self.chance = random.Random(seed)
        for _ in range(calls):
            self.call()

    def note(self, changed: dict[ShardId, frozenset[bool]]) -> None:
        self.may = self.may | changed
        self.past.append((self.disk.files.step, self.may))

    def call(self) -> None:
        kind = self.chance.choices(["put", "remove", "sync", "checkpoint", "compact", "replace"], [10, 4, 2, 1, 2, 3])[
            0
        ]
        some = self.chance.sample(self.shards, self.chance.randint(1, 4))
        getattr(self, kind)(some)

    def put(self, some: list[ShardId]) -> None:
        shard, durable = some[0], self.chance.random() < 0.5
        self.note({shard: self.may[shard] | {THERE}})
        data = content(shard)
        put(self.state, header_of(shard), [data[:100], data[100:]], durable=durable)
        if durable:
            self.note({shard: frozenset({THERE})})

    def remove(self, some: list[ShardId]) -> None:
        self.note({shard: self.may[shard] | {GONE} for shard in some})
        remove(self.state, some)
        self.note(dict.fromkeys(some, frozenset({GONE})))

    def sync(self, some: list[ShardId]) -> None:
        there = [shard for shard in some if is_there(self.state, shard)]
        sync(self.state, there)
        self.note(dict.fromkeys(there, frozenset({THERE})))

    def checkpoint(self, some: list[ShardId]) -> None:
        there = {shard: frozenset({is_there(self.state, shard)}) for shard in self.shards}
        checkpoint(self.state)
        self.note(there)

    def compact(self, some: list[ShardId]) -> None:
        compact(self.state, self.chance.choice([500, 4000, 100_000]))

    def replace(self, some: list[ShardId]) -> None:
        """Put a shard once more that is taken for damaged."""
        entry = self.state.index.get(some[0])
        if entry is not None:
            self.state.index.set(some[0], Entry(entry.header, entry.place, bad=True))
            put(self.state, header_of(some[0]), [content(some[0])], durable=False)
            self.note({some[0]: frozenset({THERE})})

    def allowed(self, step: int) -> dict[ShardId, frozenset[bool]]:
        return [may for at, may in self.past if at <= step][-1]


def seen(state: DiskState, shards: list[ShardId]) -> dict[ShardId, bool]:
    found = {shard: is_there(state, shard) for shard in shards}
    facts, listed = state.index.facts, state.index.page(None, 1000)
    assert [entry.header.shard for entry in listed] == sorted(shard for shard in shards if found[shard])
    assert not any(entry.bad for entry in listed)
    assert (facts.incomplete, facts.bad_shards, facts.errors) == ("", 0, 0)
    assert facts.shards == len(listed)
    assert facts.used_bytes == sum(entry.place.size_bytes for entry in listed)
    return found


def check_crashes(index_folder: Path, seed: int, calls: int, at_each: int, share: float = 1.0) -> int:
    run = Run(index_folder, seed, calls)
    run.state.close()
    assert run.disk.files.open_handles() == 0
    chance = random.Random(seed)
    count = 0
    for crashed in run.disk.files.crash_states(seed, at_each):
        if chance.random() > share:
            continue
        count += 1
        assert isinstance(crashed.disk, CrashFiles)
        image = None if chance.random() < 0.3 else run.disk.image_at(crashed.step)
        where = f"seed {seed}, step {crashed.step}, index {'lost' if image is None else 'there'}"
        disk = CrashingDisk(index_folder, crashed.disk, image)
        found = seen(disk.state, run.shards)
        wrong = {shard: is_in for shard, is_in in found.items() if is_in not in run.allowed(crashed.step)[shard]}
        assert not wrong, f"{where}: {wrong}"
        if count % 5 == 0:
            go_on(index_folder, disk, run, found, where)
        else:
            disk.state.close()
    return count


def go_on(index_folder: Path, disk: CrashingDisk, run: Run, found: dict[ShardId, bool], where: str) -> None:
    """Write, remove and compact after the crash; the index made again must then tell the same."""
    first, second = run.shards[1], run.shards[4]
    for shard in (first, second):
        put(disk.state, header_of(shard), [content(shard)], durable=True)
    remove(disk.state, [run.shards[2], run.shards[5]])
    wanted = found | {first: THERE, second: THERE, run.shards[2]: GONE, run.shards[5]: GONE}
    while compact(disk.state, 10_000):
        pass
    assert seen(disk.state, run.shards) == wanted, where
    checkpoint(disk.state, clean=True)
    disk.state.close()
    again = CrashingDisk(index_folder, disk.files, None)
    assert seen(again.state, run.shards) == wanted, where
    again.state.close()


@pytest.mark.parametrize("seed", range(2))
def test_nothing_durable_is_lost_at_any_step(index_folder: Path, seed: int) -> None:
    assert check_crashes(index_folder, seed, calls=60, at_each=6, share=0.4) > 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_nothing_durable_is_lost_at_any_step_of_many_runs(index_folder: Path, seed: int) -> None:
    assert check_crashes(index_folder, seed, calls=80, at_each=8, share=0.5) > 100


@pytest.mark.slow
def test_a_file_that_was_replaced_and_removed_since_the_last_commit_stays_removed(index_folder: Path) -> None:
    """In this run a power failure brings back the name of a file that is younger than the one the index knows."""
    assert check_crashes(index_folder, 4005, calls=150, at_each=8) > 500
