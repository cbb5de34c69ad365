"""Slices over many disks: losses, damage, stragglers, full and absent disks, maps that change, repair."""

import itertools
import random
from pathlib import Path

import pytest
from fs_cluster import (
    CLASSES,
    COLD,
    VOLUME,
    Cluster,
    MemoryHolder,
    VirtualLanes,
    content,
    readable,
    written,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import (
    AlreadyExistsError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    StoreError,
    UnavailableError,
)
from stoker.fs.cluster import ClusterStore, InlineLanes, KnownClasses, Options, ThreadLanes
from stoker.fs.cluster.health import Breaker
from stoker.fs.cluster.repairing import exposure
from stoker.fs.disk import Disk as RealDisk
from stoker.fs.disk.interface import ShardId
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import MakeClass
from stoker.fs.meta.slices import Slice
from stoker.fs.place import Disk, new_map
from stoker.fs.store.interface import SliceRange

LARGE = Slice(7, 1, 300_000, 1)
SMALL = Slice(8, 1, 5_000, 1)
PAIRED = Slice(9, 1, 100_000, 2)


def shards(cluster: Cluster, data: Slice) -> dict[int, list[int]]:
    """Return on which disks each shard of a slice lies."""
    found: dict[int, list[int]] = {}
    for number, holder in cluster.holders.items():
        for name in holder.shards:
            if (name.slice_id, name.generation) == (data.id, data.generation):
                found.setdefault(name.index, []).append(number)
    return dict(sorted(found.items()))


def row(cluster: Cluster, data: Slice) -> tuple[int, ...]:
    return cluster.store._holders.places().of(data).row


# -- where bytes go, and what they cost


def test_a_large_slice_is_coded_and_a_small_one_copied() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE, SMALL, PAIRED)
    readable(cluster.store, LARGE, SMALL, PAIRED)
    assert shards(cluster, LARGE) == {index: [disk] for index, disk in enumerate(row(cluster, LARGE))}
    assert len(shards(cluster, SMALL)) == 5 and len(shards(cluster, PAIRED)) == 2
    used = sum(len(data) for h in cluster.holders.values() for n, (_, data) in h.shards.items() if n.slice_id == 7)
    assert used <= 1.5 * LARGE.size_bytes + 12 * 64
    assert cluster.store.counts().short_writes == 0 and cluster.store.take_short() == []


def test_a_small_range_asks_one_shard_for_its_own_bytes() -> None:
    cluster = Cluster(options=Options(check_headers=False))
    written(cluster.store, LARGE)
    for holder in cluster.holders.values():
        holder.calls.clear()
    assert bytes(cluster.store.read([SliceRange(LARGE, 33_000, 100)])[0]) == content(LARGE)[33_000:33_100]
    assert sum(len(holder.calls) for holder in cluster.holders.values()) == 1
    assert sum(holder.got_bytes for holder in cluster.holders.values()) == 100


def test_many_ranges_of_a_slice_cost_one_request_for_each_shard() -> None:
    cluster = Cluster(options=Options(check_headers=False))
    written(cluster.store, LARGE, SMALL)
    for holder in cluster.holders.values():
        holder.calls.clear()
    chance = random.Random(3)
    ranges = [SliceRange(LARGE, chance.randrange(290_000), chance.randrange(9_000)) for _ in range(600)]
    found = cluster.store.read([*ranges, SliceRange(SMALL, 10, 10), SliceRange(LARGE, 5, 0)])
    wanted = [content(LARGE)[one.offset : one.offset + one.length] for one in ranges]
    assert [bytes(part) for part in found] == [*wanted, content(SMALL)[10:20], b""]
    assert sum(len(holder.calls) for holder in cluster.holders.values()) == 2 * 8 + 1  # 512 ranges at a time


def test_copies_share_the_reads() -> None:
    cluster = Cluster(2)
    slices = [Slice(number, 1, 100, 2) for number in range(1, 41)]
    written(cluster.store, *slices)
    readable(cluster.store, *slices)
    gets = [holder.calls.count("get") for holder in cluster.holders.values()]
    assert sum(gets) == 40 and min(gets) >= 8


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200_000), st.sampled_from([0, 1, 2, 3]), st.integers(0, 2**32))
def test_any_ranges_of_any_slice_are_read_with_any_losses(size_bytes: int, number: int, seed: int) -> None:
    chance = random.Random(seed)
    cluster, data = Cluster(), Slice(seed + 1, chance.randrange(3), size_bytes, number)
    whole = content(data)
    cuts = sorted(chance.randrange(size_bytes + 1) for _ in range(2))
    cluster.store.write(data, [whole[a:b] for a, b in itertools.pairwise([0, *cuts, size_bytes])], durable=False)
    losses = {0: 0, 1: 4, 2: 1, 3: 2}[number]
    held = [disk for disks in shards(cluster, data).values() for disk in disks]
    for disk in chance.sample(held, losses):
        how = chance.choice(["wipe", "break", "rot", "down"])
        if how == "wipe":
            cluster.wipe(disk)
        elif how == "break":
            cluster.holders[disk].broken = "pulled"
        elif how == "rot":
            cluster.rot(disk, data)
        else:
            cluster.set(disk, health="down")
    ranges = []
    for _ in range(4):
        start, end = sorted(chance.randrange(size_bytes + 1) for _ in range(2))
        ranges.append(SliceRange(data, start, end - start))
    found = cluster.store.read(ranges)
    assert [bytes(part) for part in found] == [whole[one.offset : one.offset + one.length] for one in ranges]


# -- losses and repair


def real_cluster(folder: Path) -> Cluster:
    cluster = Cluster()
    cluster.holders = {n: RealDisk.make(folder / f"d{n}", VOLUME) for n in range(12) if not (folder / f"d{n}").mkdir()}
    return cluster


def close(cluster: Cluster) -> None:
    cluster.store.close()
    for holder in cluster.holders.values():
        holder.close()


def test_any_4_of_12_disks_are_lost_repaired_and_4_others_lost(tmp_path: Path) -> None:
    cluster = real_cluster(tmp_path)
    sizes = (1, 5_000, 40_000, 100_001, 300_000)
    slices = [Slice(number, 1, size, 1) for number, size in enumerate(sizes, 1)]
    written(cluster.store, *slices)
    for number, gone in enumerate([(0, 1, 2, 3), (4, 5, 6, 7)]):
        for disk in gone:
            cluster.holders[disk].close()
            (tmp_path / f"fresh{number}.{disk}").mkdir()
            cluster.holders[disk] = RealDisk.make(tmp_path / f"fresh{number}.{disk}", VOLUME)
        readable(cluster.opened(), *slices)
        assert min(exposure(cluster.store.examine())) == 0
        assert all(not report.short and not report.error for report in cluster.store.repair_all())
        assert set(exposure(cluster.store.examine())) == {4}
        assert not any(seen.needs_repair for seen in cluster.store.examine())
    readable(cluster.opened(), *slices)
    assert all(report.spare == 4 and not report.rebuilt for report in map(_deep(cluster), slices))
    close(cluster)


def _deep(cluster: Cluster):  # type: ignore[no-untyped-def]
    return lambda data: cluster.store.repair_slice(data, deep=True)


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_every_way_to_lose_4_of_12_reads_every_byte(step: int) -> None:
    cluster = Cluster(options=Options(check_headers=False))
    data = Slice(3, 1, 40_001, 1)
    written(cluster.store, data)
    kept = {number: holder.shards for number, holder in cluster.holders.items()}
    for gone in list(itertools.combinations(range(12), 4))[::step]:
        for number, holder in cluster.holders.items():
            holder.shards = {} if number in gone else kept[number]
        readable(cluster.store, data)
    for number, holder in cluster.holders.items():
        holder.shards = {} if number < 5 else kept[number]
    with pytest.raises(CorruptError, match="too few shards"):
        cluster.store.read([SliceRange(data, 0, data.size_bytes)])


def test_disks_given_up_are_rebuilt_elsewhere_and_then_others_may_go() -> None:
    cluster = Cluster(20)
    slices = [Slice(number, 1, 50_000 + number, 1) for number in range(1, 15)]
    written(cluster.store, *slices)
    cluster.wipe(0, 1, 2, 3)
    cluster.set(0, 1, 2, 3, health="out")
    readable(cluster.store, *slices)
    reports = cluster.store.repair_all()
    assert reports and all(report.rebuilt and not report.short for report in reports)
    assert [report.spare for report in reports] == sorted(report.spare for report in reports)
    assert set(exposure(cluster.store.examine())) == {4}
    cluster.settle()
    cluster.wipe(8, 9, 10, 11)
    readable(cluster.opened(), *slices)


def test_draining_copies_and_then_forgets() -> None:
    cluster = Cluster(14)
    slices = [Slice(number, 1, 60_000, 1) for number in range(1, 10)]
    written(cluster.store, *slices)
    held = {data for data in slices if any(5 in disks for disks in shards(cluster, data).values())}
    cluster.set(5, draining=True)
    readable(cluster.store, *slices)
    reports = cluster.store.repair_all()
    assert {report.slice for report in reports} == held
    assert all(len(report.copied) == 1 and not report.rebuilt and report.removed == 1 for report in reports)
    assert not cluster.holders[5].shards
    cluster.settle()
    readable(cluster.opened(), *slices)


def test_nothing_is_forgotten_before_it_is_where_it_belongs() -> None:
    cluster = Cluster(13)
    written(cluster.store, LARGE)
    was = row(cluster, LARGE)
    cluster.set(was[2], draining=True)
    target = row(cluster, LARGE)[2]
    cluster.holders[target].broken = "cable"
    report = cluster.store.repair_slice(LARGE)
    assert report.short == (2,) and report.removed == 0 and shards(cluster, LARGE)[2] == [was[2]]
    cluster.holders[target].broken = ""
    assert cluster.store.repair_slice(LARGE).copied == (2,)
    assert shards(cluster, LARGE)[2] == [target]


def test_rot_in_any_shard_is_found_and_healed() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE, SMALL)
    for data in (LARGE, SMALL):
        for disk in row(cluster, data):
            cluster.rot(disk, data)
            readable(cluster.store, data)
            assert len(cluster.store.repair_slice(data, deep=True).rebuilt) == 1
            assert cluster.store.repair_slice(data, deep=True).rebuilt == ()
            readable(cluster.opened(), data)
    assert sum(cluster.store.counts().corrupt_by_disk.values()) >= 17


def test_rot_that_a_repair_meets_on_its_way_costs_another_source() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    disks = row(cluster, LARGE)
    cluster.rot(disks[0], LARGE)
    cluster.rot(disks[3], LARGE)
    cluster.wipe(disks[1])
    assert cluster.store.repair_slice(LARGE).rebuilt == (1,)
    assert cluster.store.repair_slice(LARGE, deep=True).rebuilt == (0, 3)
    readable(cluster.opened(), LARGE)


def test_generations_are_never_mixed() -> None:
    cluster = Cluster()
    old, new = Slice(7, 1, 300_000, 1), Slice(7, 2, 300_000, 1)
    written(cluster.store, old, new)
    for disk in row(cluster, new)[:4]:
        name = next(name for name in cluster.holders[disk].shards if name.generation == 2)
        del cluster.holders[disk].shards[name]
    readable(cluster.store, new, old)
    report = cluster.store.repair_slice(new)
    assert report.spare == 0 and len(report.rebuilt) == 4
    readable(cluster.opened(), new, old)


def test_shards_that_are_sound_but_not_of_one_slice_are_told() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    disk = row(cluster, LARGE)[11]
    other = Cluster()
    other.store.write(LARGE, [bytes(LARGE.size_bytes)], durable=True)
    cluster.holders[disk].shards = {
        name: pair for holder in other.holders.values() for name, pair in holder.shards.items() if name.index == 11
    }
    with pytest.raises(CorruptError, match="do not fit each other"):
        cluster.store.repair_slice(LARGE, deep=True)


def test_a_shard_of_another_form_is_never_taken() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    with pytest.raises(NotFoundError, match="another size"):
        cluster.opened().read([SliceRange(Slice(7, 1, 299_999, 1), 0, 10)])
    with pytest.raises(NotFoundError):
        cluster.store.repair_slice(Slice(7, 1, 299_999, 1))


def test_the_slices_with_the_fewest_spare_shards_come_first() -> None:
    cluster = Cluster()
    slices = [Slice(number, 1, 50_000, 1) for number in range(1, 5)]
    written(cluster.store, *slices)
    for data, losses in zip(slices, (1, 4, 0, 5), strict=True):
        for disk in row(cluster, data)[:losses]:
            name = next(name for name in cluster.holders[disk].shards if name.slice_id == data.id)
            del cluster.holders[disk].shards[name]
    assert exposure(cluster.store.examine()) == {-1: 1, 0: 1, 3: 1, 4: 1}
    reports = cluster.store.repair_all()
    assert [(report.slice.id, report.spare) for report in reports] == [(4, -1), (2, 0), (1, 3)]
    assert "too few shards" in reports[0].error and not reports[1].error


# -- writing on bad days


def test_a_write_is_acknowledged_by_the_policy_and_never_below() -> None:
    for broken in range(4):
        cluster = Cluster()
        for disk in row(cluster, LARGE)[:broken]:
            cluster.holders[disk].broken = "cable"
        if broken <= 2:
            written(cluster.store, LARGE)
            readable(cluster.store, LARGE)
            short = cluster.store.take_short()
            assert {one for told in short for one in told.shards} == set(range(broken))
        else:
            with pytest.raises(UnavailableError, match="too few disks"):
                written(cluster.store, LARGE)
            assert not shards(cluster, LARGE)


def test_copies_are_never_acknowledged_alone() -> None:
    cluster = Cluster(2)
    cluster.set(0, health="down")
    with pytest.raises(UnavailableError):
        written(cluster.store, PAIRED)
    assert not shards(cluster, PAIRED)


def test_stand_ins_take_what_a_disk_that_is_away_should_have() -> None:
    cluster = Cluster(5)
    home = row(cluster, PAIRED)
    cluster.set(home[0], health="down")
    written(cluster.store, PAIRED)
    stand_in = shards(cluster, PAIRED)[0][0]
    assert stand_in not in home and cluster.store.take_short()[0].shards == (0,)
    # Read by who did not write it, also when the other copy goes, and when the first disk is back.
    cluster.wipe(home[1])
    readable(cluster.opened(), PAIRED)
    cluster.set(home[0], health="up")
    readable(cluster.opened(), PAIRED)
    report = cluster.store.repair_slice(PAIRED)
    assert sorted((*report.copied, *report.rebuilt)) == [0, 1] and report.removed == 1
    assert shards(cluster, PAIRED) == {0: [home[0]], 1: [home[1]]}


def test_full_and_read_only_disks_are_read_and_not_written() -> None:
    cluster = Cluster(5)
    written(cluster.store, PAIRED)
    home = row(cluster, PAIRED)
    cluster.set(home[0], full=True)
    cluster.set(home[1], read_only=True)
    readable(cluster.store, PAIRED)
    same = next(Slice(n, 1, 5000, 2) for n in range(10, 5000) if row(cluster, Slice(n, 1, 5000, 2)) == home)
    written(cluster.store, same)
    assert not set(home) & {disk for disks in shards(cluster, same).values() for disk in disks}


def test_no_room_is_told_as_no_room_and_leaves_nothing() -> None:
    cluster = Cluster()
    for holder in cluster.holders.values():
        holder.room_bytes = 1000
    with pytest.raises(NoSpaceError):
        written(cluster.store, LARGE)
    assert not shards(cluster, LARGE)


def test_a_repeated_write_that_fails_takes_nothing_away() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    for disk in row(cluster, LARGE)[:3]:
        cluster.holders[disk].broken = "cable"
    with pytest.raises(UnavailableError):
        written(cluster.store, LARGE)
    assert len(shards(cluster, LARGE)) == 12


def test_other_bytes_under_the_same_name_are_refused() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    with pytest.raises(AlreadyExistsError):
        cluster.store.write(LARGE, [bytes(LARGE.size_bytes)], durable=True)
    readable(cluster.store, LARGE)
    for part in (b"", content(LARGE)[1:]):
        with pytest.raises(StoreError):
            cluster.store.write(LARGE, [part], durable=True)


def test_a_map_that_changes_during_a_write_loses_nothing() -> None:
    cluster = Cluster(16)
    home = row(cluster, LARGE)
    holder = cluster.holders[home[6]]

    def change(_: float) -> None:
        holder.sleep = lambda _: None
        cluster.set(home[0], home[1], draining=True)

    holder.sleep = change
    written(cluster.store, LARGE)
    short = cluster.store.take_short()
    assert set(short[0].shards) == {0, 1}
    cluster.settle()  # a master that does not know of the write forgets the former places
    readable(cluster.opened(), LARGE)
    report = cluster.store.repair_slice(short[0].slice)
    assert set(report.copied) == {0, 1} and report.removed == 2
    assert shards(cluster, LARGE) == {index: [disk] for index, disk in enumerate(row(cluster, LARGE))}


def test_garbage_is_removed_where_it_is_found_though_no_map_leads_there() -> None:
    cluster = Cluster(20)
    written(cluster.store, LARGE)
    place = cluster.store._holders.places().of(LARGE)
    usual = {*place.row, *place.stand_ins()}
    home, astray = place.row[3], next(number for number in cluster.holders if number not in usual)
    name = place.shard(3)
    cluster.holders[astray].shards[name] = cluster.holders[home].shards[name]
    cleaner = cluster.opened()
    assert list(cleaner.inventory()) == [LARGE]
    cleaner.remove([LARGE])
    assert list(cleaner.inventory()) == [] and not cluster.holders[astray].shards


def test_a_stand_in_is_kept_until_the_shard_where_it_belongs_is_durable() -> None:
    cluster = Cluster(20)
    written(cluster.store, LARGE, durable=False)
    place = cluster.store._holders.places().of(LARGE)
    home, other, name = place.row[3], place.stand_ins()[0], place.shard(3)
    cluster.holders[other].shards[name] = cluster.holders[home].shards[name]
    kept = cluster.holders[home].sync

    def refuse(shards: object) -> None:
        raise StoreError("fsync failed")

    cluster.holders[home].sync = refuse  # type: ignore[method-assign]
    assert cluster.store.repair_slice(LARGE).removed == 0
    assert name in cluster.holders[other].shards
    cluster.holders[home].sync = kept  # type: ignore[method-assign]
    assert cluster.store.repair_slice(LARGE).removed == 1
    assert name not in cluster.holders[other].shards


# -- slow disks


def test_a_straggler_is_read_around() -> None:
    lanes = VirtualLanes()
    cluster = Cluster(lanes=lanes, options=Options(check_headers=False))
    slices = [Slice(number, 1, 60_000, 1) for number in range(1, 30)]
    for holder in cluster.holders.values():
        holder.seconds = 0.003
    written(cluster.store, *slices)
    for data in slices:
        readable(cluster.store, data)
    assert cluster.store.counts().hedged_reads == 0
    slow = row(cluster, slices[0])[2]
    cluster.holders[slow].seconds = 5.0
    start = lanes.now
    readable(cluster.store, slices[0])
    assert lanes.now - start < 0.02
    told = cluster.store.counts()
    assert told.hedged_reads >= 1 and told.degraded_reads >= 1
    assert cluster.store.take_short() == []  # it is late, and where it belongs: nothing is to be repaired
    cluster.holders[slow].seconds, cluster.holders[slow].broken = 0.001, "gone"
    readable(cluster.store, slices[0])
    assert [short.slice for short in cluster.store.take_short()] == [slices[0]]


def test_few_slices_are_read_once_more_because_a_disk_was_a_little_late() -> None:
    """Of 12 disks each answers a tenth of the time a little later: a hedge is for who is late, not for the slowest."""
    lanes = VirtualLanes()
    cluster = Cluster(lanes=lanes, options=Options(check_headers=False))
    slices = [Slice(number, 1, 60_000, 1) for number in range(1, 40)]
    written(cluster.store, *slices)
    rng = random.Random(7)

    def jitter(_: float) -> None:
        lanes.sleep(rng.uniform(0.004, 0.008) + (0.003 if rng.random() < 0.1 else 0.0))

    for holder in cluster.holders.values():
        holder.sleep = jitter
    for _ in range(5):
        for data in slices:
            readable(cluster.store, data)
    told = cluster.store.counts()
    assert told.reads >= 195 and told.degraded_reads < 0.15 * told.reads, told


def test_a_copy_that_is_slow_is_read_from_the_other() -> None:
    lanes = VirtualLanes()
    cluster = Cluster(5, lanes=lanes)
    slices = [Slice(number, 1, 3_000, 2) for number in range(1, 30)]
    for holder in cluster.holders.values():
        holder.seconds = 0.003
    written(cluster.store, *slices)
    for data in slices:
        readable(cluster.store, data)
    cluster.holders[2].seconds = 9.0
    start = lanes.now
    for data in slices:
        readable(cluster.store, data)
    assert lanes.now - start < 29 * 0.02 and cluster.store.counts().degraded_reads == 0


def test_a_slow_disk_does_not_hold_up_a_write_for_long() -> None:
    lanes = VirtualLanes()
    cluster = Cluster(lanes=lanes, options=Options(linger_seconds=0.25))
    slow = row(cluster, LARGE)[5]
    cluster.holders[slow].seconds = 20.0
    written(cluster.store, LARGE)
    assert 0.2 < lanes.now < 0.3
    assert cluster.store.take_short()[0].shards == (5,)


def test_a_broken_disk_is_soon_left_alone() -> None:
    cluster = Cluster(3, options=Options(check_headers=False))
    slices = [Slice(number, 1, 2_000, 2) for number in range(1, 60)]
    written(cluster.store, *slices)
    cluster.holders[1].broken = "dead"
    for data in slices:
        readable(cluster.store, data)
    assert cluster.holders[1].calls.count("get") == 3
    cluster.holders[1].broken = ""
    cluster.now += 60
    for data in slices:
        readable(cluster.store, data)
    assert cluster.holders[1].calls.count("get") > 10


def test_breakers_open_for_longer_each_time() -> None:
    breaker, pauses = Breaker(), []
    for _ in range(12):
        breaker = breaker.failed(100.0)
        pauses.append(breaker.open_until - 100.0 if breaker.open_until else 0.0)
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert Breaker(2).allows(0) and not breaker.allows(129) and breaker.allows(130)


# -- durability, removal, inventory


def test_made_durable_means_on_enough_disks() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE, SMALL, durable=False)
    cluster.store.make_durable([LARGE, SMALL])
    assert all("sync" in cluster.holders[disk].calls for disk in row(cluster, LARGE))
    for disk in row(cluster, LARGE)[:3]:
        cluster.holders[disk].broken = "cable"
    with pytest.raises(UnavailableError, match="9"):
        cluster.store.make_durable([LARGE])
    with pytest.raises(NotFoundError):
        Cluster().store.make_durable([LARGE])


def test_made_durable_by_another_client_and_by_stand_ins() -> None:
    cluster = Cluster(5)
    cluster.set(row(cluster, PAIRED)[0], health="down")
    written(cluster.store, PAIRED, durable=False)
    cluster.opened().make_durable([PAIRED])
    cluster.store.make_durable([PAIRED])


def test_removal_tells_of_disks_that_could_not_be_asked() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    disk = row(cluster, LARGE)[0]
    cluster.set(disk, health="down")
    with pytest.raises(UnavailableError, match=f"disks {disk}"):
        cluster.store.remove([LARGE])
    assert list(shards(cluster, LARGE)) == [0]
    cluster.set(disk, health="up")
    cluster.store.remove([LARGE])
    cluster.store.remove([LARGE])
    assert not shards(cluster, LARGE)


def test_an_inventory_is_complete_or_none() -> None:
    cluster = Cluster()
    slices = {Slice(number, number % 3, 1 + number * 100, number % 4) for number in range(1, 60)}
    written(cluster.store, *slices)
    assert set(cluster.store.inventory()) == slices
    cluster.set(3, health="suspect")
    assert set(cluster.store.inventory()) == slices
    cluster.set(3, health="down")
    with pytest.raises(UnavailableError, match="not complete"):
        list(cluster.store.inventory())
    cluster.set(3, health="up")
    cluster.holders[3].broken = "cable"
    with pytest.raises(UnavailableError):
        list(cluster.store.inventory())


def test_what_is_read_of_too_few_disks_is_told_by_its_cause() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)
    home = row(cluster, LARGE)
    for disk in home[:5]:
        cluster.rot(disk, LARGE)
    with pytest.raises(CorruptError, match="too few shards"):
        cluster.store.read([SliceRange(LARGE, 0, LARGE.size_bytes)])
    cluster.set(home[0], health="down")
    with pytest.raises(UnavailableError, match="too few shards"):
        cluster.store.read([SliceRange(LARGE, 0, LARGE.size_bytes)])
    with pytest.raises(NotFoundError):
        Cluster().store.read([SliceRange(LARGE, 0, 1)])


def test_a_holder_that_raises_anything_else_counts_as_failed() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE)

    class Wild(MemoryHolder):
        def get(self, shard: ShardId, ranges: object) -> list[bytes]:  # type: ignore[override]
            raise ConnectionResetError("gone")

    cluster.holders[row(cluster, LARGE)[0]] = Wild(0)
    readable(cluster.store, LARGE)
    assert sum(cluster.store.counts().failed_by_disk.values()) >= 1


def test_threads_read_and_write_beside_each_other(tmp_path: Path) -> None:
    lanes = ThreadLanes(16)
    made = new_map([Disk(n, 100, f"h{n}") for n in range(12)], CLASSES.values())
    holders = {n: MemoryHolder(n) for n in range(12)}
    store = ClusterStore(VOLUME, lambda: made, holders.__getitem__, CLASSES.__getitem__, lanes)
    slices = [Slice(number, 1, 40_000 + number, number % 4) for number in range(1, 40)]
    written(store, *slices)
    for holder in list(holders.values())[:1]:
        holder.broken = "dead"
    readable(store, *[data for data in slices if data.storage_class != 0])
    store.close()
    assert isinstance(InlineLanes().clock(), float) and COLD.k == 8


def test_classes_are_asked_of_the_metadata_once_and_again_for_new_ones() -> None:
    with Volume.format("memory://") as volume:
        asked: list[object] = []

        class Counted:
            def run(self, request: object, **named: object) -> object:
                asked.append(request)
                return volume.run(request, **named)  # type: ignore[arg-type]

        classes = KnownClasses(Counted())  # type: ignore[arg-type]
        assert classes(0).name == "single" and classes(0).text == "1"
        with pytest.raises(NotFoundError, match="storage class"):
            classes(1)
        number = volume.run(MakeClass(COLD)).value
        assert classes(number).text == "8+4" and classes(number).name == "cold"
        assert len(asked) == 3


def test_shards_on_any_disk_are_found_when_nothing_else_helps() -> None:
    cluster = Cluster()
    written(cluster.store, LARGE, SMALL)
    kept = [holder.shards for holder in cluster.holders.values()]
    for number, holder in cluster.holders.items():
        holder.shards = kept[(number + 5) % 12]
    for disk in range(4):
        cluster.wipe(disk)
    store = cluster.opened()
    readable(store, LARGE)
    assert bytes(store.read([SliceRange(LARGE, 100, 5_000)])[0]) == content(LARGE)[100:5_100]
    assert store.counts().searched_reads == 2
    report = cluster.store.repair_slice(LARGE)
    assert report.spare == 0 and len(report.copied) == 8 and len(report.rebuilt) == 4 and not report.short
    readable(cluster.opened(), LARGE)
