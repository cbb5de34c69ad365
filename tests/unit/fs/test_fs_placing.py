"""Placement: draws, maps, their differences, tables of groups, exceptions, what moves and what would be lost."""

import random
import zlib
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import CorruptError, UsageError
from stoker.fs.meta.storage_class import StorageClass, coded
from stoker.fs.place import NO_DISK, ClusterMap, Disk, Mapping, Override, new_map
from stoker.fs.place.balancing import balanced, fan_out
from stoker.fs.place.changing import (
    disks_of,
    settled,
    what_if,
    with_disks,
    with_overrides,
    with_pools,
    without_disks,
)
from stoker.fs.place.map import (
    Before,
    Pool,
    applied,
    checked,
    difference,
    group_bits,
    pack_map,
    pools_for,
    unpack_map,
)
from stoker.fs.place.mapping import Domains, draw_group, draw_table
from stoker.fs.place.straw import NEVER, draw, draw_many, log_table, mix, name_number

COLD = coded("cold", 8, 4)
PAIR = StorageClass(0, "pair", 1, 1)


def cluster(hosts: int, disks_each: int = 1, *, weight: int = 100, classes: Any = (COLD, PAIR)) -> ClusterMap:
    disks = [
        Disk(host * disks_each + at, weight, f"h{host:03}", rack=f"r{host // 4}")
        for host in range(hosts)
        for at in range(disks_each)
    ]
    return new_map(disks, classes)


def mapping(made: ClusterMap, width: int = 12, domain: Any = "host") -> Mapping:
    return Mapping(made, made.pool(width, domain))


def changed(made: ClusterMap, number: int, **facts: Any) -> ClusterMap:
    return with_disks(made, [msgspec.structs.replace(made.by_id[number], **facts)])


# -- draws


def test_draws_are_the_golden_ones() -> None:
    assert mix(0) == 0 and mix(1) == 0x5692161D100B05E5
    assert name_number("rack/host") == 0x8DD1BFA393D5E851
    assert zlib.crc32(log_table().astype("<u4").tobytes()) == 250873607
    assert [draw(seed, 1000) for seed in (0, 1, 2**63)] == [1909526242005090, 56356227650682, 99484182555656]
    table = mapping(cluster(30)).table
    assert zlib.crc32(table.astype("<u4").tobytes()) == 1373361145


def test_the_table_holds_logarithms() -> None:
    exact = np.log2(1 + np.arange(65536) / 65536)
    assert np.abs(log_table() / 2**31 - exact).max() < 1e-8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1, max_size=50))
def test_many_draws_are_the_single_ones(pairs: list[tuple[int, int]]) -> None:
    seeds = np.array([seed for seed, _ in pairs], np.uint64)
    weights = np.array([weight for _, weight in pairs], np.uint64)
    assert [int(one) for one in draw_many(seeds, weights)] == [draw(seed, weight) for seed, weight in pairs]
    assert draw(5, 0) == NEVER


def test_items_win_in_proportion_to_their_weight() -> None:
    disks = [Disk(number, 4 << number % 3, f"h{number}") for number in range(60)]
    domains = Domains(disks, "host", 1)
    table = draw_table(domains, np.full((1 << 13, 1), NO_DISK, np.uint32))
    found = np.bincount(table.ravel(), minlength=60)
    weights = np.array([disk.weight for disk in disks])
    expected = weights / weights.sum() * (1 << 13)
    assert ((found - expected) ** 2 / expected).sum() / 59 < 1.5


def test_an_item_that_comes_moves_groups_only_to_itself() -> None:
    disks = [Disk(number, 100, f"h{number}") for number in range(36)]
    empty = np.full((1 << 13, 1), NO_DISK, np.uint32)
    before = draw_table(Domains(disks[:35], "host", 1), empty)
    after = draw_table(Domains(disks, "host", 1), empty)
    moved = before != after
    assert set(after[moved]) == {35}
    assert abs(moved.mean() - 1 / 36) < 0.008


# -- tables


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=16),
    st.sampled_from([1, 2, 3, 6, 12]),
    st.integers(0, 2**32),
    st.sampled_from(["disk", "host", "rack"]),
)
def test_both_twins_draw_the_same_rows(disks: list[tuple[int, int]], width: int, seed: int, level: Any) -> None:
    made = [Disk(at, weight, f"h{host}", rack=f"r{host % 2}") for at, (weight, host) in enumerate(disks)]
    domains = Domains(made, level, width)
    chance = random.Random(seed)
    table = np.full((8, width), NO_DISK, np.uint32)
    table[:, 0] = [chance.choice([NO_DISK, chance.randrange(len(made))]) for _ in range(8)]
    found = draw_table(domains, table, 3)
    assert [list(map(int, row)) for row in found] == [
        draw_group(domains, at, list(map(int, row)), 3) for at, row in enumerate(table)
    ]
    assert (found != NO_DISK).all()
    place = {disk.id: disk.domain(level) for disk in made}
    if level != "disk" or len(made) >= width:
        for row in found:
            assert max(Counter(place[int(one)] for one in row).values()) <= max(domains.caps)


@pytest.mark.parametrize(("hosts", "each"), [(12, 1), (13, 1), (14, 3), (30, 2)])
def test_shards_lie_in_different_hosts(hosts: int, each: int) -> None:
    made = cluster(hosts, each)
    found = mapping(made)
    assert not found.degraded
    for row in found.table:
        assert len({made.by_id[int(disk)].host for disk in row}) == 12


def test_fewer_hosts_than_shards_is_told_and_spread_as_far_as_can_be() -> None:
    made = cluster(5, 4)
    found = mapping(made)
    assert found.degraded == "12 shards on 5 of the level host"
    for row in found.table:
        assert max(Counter(made.by_id[int(disk)].host for disk in row).values()) == 3
        assert len(set(row)) == 12
    alone = mapping(cluster(1))
    assert set(alone.table.ravel()) == {0}


def test_a_map_without_disks_places_nothing() -> None:
    empty = new_map([], [PAIR])
    assert set(mapping(empty, 2).table.ravel()) == {NO_DISK}
    assert mapping(empty, 2).stand_ins(0) == ()


@pytest.mark.parametrize("facts", [{"health": "out"}, {"draining": True}])
def test_a_disk_that_goes_moves_its_slots_alone(facts: dict[str, Any]) -> None:
    made = cluster(20)
    before = mapping(made).table
    after_map = changed(made, 7, **facts)
    after = mapping(after_map).table
    assert ((before != after) == (before == 7)).all() and (after != 7).all()
    for row in after:
        assert len(set(row)) == 12
    pool = after_map.pool(12, "host")
    assert {one.group for one in pool.before} == set(np.flatnonzero((before == 7).any(axis=1)))
    assert all(list(one.rows) == [tuple(map(int, before[one.group]))] for one in pool.before)


@pytest.mark.parametrize(
    "facts", [{"health": "down"}, {"health": "suspect"}, {"health": "maintenance"}, {"full": True}, {"read_only": True}]
)
def test_a_disk_that_may_come_back_moves_nothing(facts: dict[str, Any]) -> None:
    made = cluster(20)
    after = changed(made, 7, **facts)
    assert after.by_id[7].writable == (facts == {"health": "suspect"})
    assert (mapping(made).table == mapping(after).table).all()
    assert not after.pool(12, "host").before


def test_of_twelve_hosts_one_that_goes_doubles_up_and_says_so() -> None:
    after = mapping(changed(cluster(12), 3, health="out"))
    assert after.degraded
    for row in after.table:
        assert 3 not in row and max(Counter(map(int, row)).values()) <= 2


def test_a_disk_that_comes_back_gets_its_slots_back() -> None:
    made = cluster(20)
    gone = changed(made, 7, health="out")
    back = changed(gone, 7, health="up")
    assert (mapping(made).table == mapping(back).table).all()
    # What was written meanwhile is where it was put.
    group = int(np.flatnonzero((mapping(made).table == 7).any(axis=1))[0])
    assert mapping(gone).row(group) in mapping(back).before(group)


def test_homes_are_where_a_shard_belongs_and_where_it_was() -> None:
    made = cluster(20)
    after = changed(made, 7, draining=True)
    was, now = mapping(made), mapping(after)
    group, slot = (int(at) for at in np.argwhere(was.table == 7)[0])
    assert list(now.homes(group, slot)) == [now.row(group)[slot], 7]
    other = (slot + 1) % 12
    assert list(now.homes(group, other)) == [now.row(group)[other]]
    done = settled(after, 12, "host", [group])
    assert list(mapping(done).homes(group, slot)) == [now.row(group)[slot]]
    assert done.epoch == after.epoch + 1


def test_stand_ins_are_in_other_domains_and_follow_from_no_state() -> None:
    made = cluster(15)
    found = mapping(made)
    for group in range(0, found.pool.groups, 40):
        extra = found.stand_ins(group)
        assert len(extra) == 3 and not set(extra) & set(found.row(group)) and len(set(extra)) == 3
        worse = changed(made, extra[0], health="down")
        assert mapping(worse).stand_ins(group) == extra
    assert mapping(cluster(12)).stand_ins(0) == ()


def test_exceptions_hold_as_long_as_shards_stay_apart() -> None:
    made = cluster(20, 2)
    pool = made.pool(12, "host")
    row = mapping(made).row(0)
    free = next(disk.id for disk in made.disks if disk.host not in {made.by_id[one].host for one in row})
    twin = row[1] ^ 1
    fine = with_overrides(made, pool, [Override(0, 0, free)])
    assert mapping(fine).row(0) == (free, *row[1:])
    assert mapping(fine).before(0) == (row,)
    for disk in (twin, row[3], 9999):
        kept = with_overrides(made, pool, [Override(0, 0, disk)])
        assert mapping(kept).row(0) == row
    gone = changed(fine, free, health="out")
    assert free not in mapping(gone).row(0)


def test_too_many_former_places_are_refused_not_forgotten() -> None:
    made = cluster(30, classes=(COLD,))
    pool = made.pool(12, "host")
    row = mapping(made).row(0)
    free = [disk.id for disk in made.disks if disk.id not in row]
    with pytest.raises(UsageError, match="too many former places"):
        for disk in free:
            made = with_overrides(made, made.pool(*pool.key), [Override(0, 0, disk)])  # type: ignore[arg-type]
    assert len(mapping(made).before(0)) == 8


def test_a_disk_in_use_cannot_be_taken_out_of_the_map() -> None:
    made = cluster(20)
    with pytest.raises(UsageError, match="in use"):
        without_disks(made, [3])
    smaller = without_disks(changed(made, 3, health="out"), [3])
    assert 3 not in smaller.by_id and (mapping(smaller).table != 3).all()
    group = smaller.pool(12, "host").before[0].group
    assert all(disk != 3 for slot in range(12) for disk in mapping(smaller).homes(group, slot))


# -- values


def test_a_map_comes_back_from_its_bytes_and_hostile_ones_are_refused() -> None:
    made = changed(cluster(20), 7, draining=True)
    assert unpack_map(pack_map(made)) == made and pack_map(unpack_map(pack_map(made))) == pack_map(made)
    good = msgspec.msgpack.decode(pack_map(made))
    for at, value in ((1, good[1][::-1]), (1, [[70_000, *good[1][0][1:]]]), (2, good[2][::-1]), (3, 2), (0, -1)):
        bad = [*good[:at], value, *good[at + 1 :]]
        with pytest.raises(CorruptError):
            unpack_map(msgspec.msgpack.encode(bad))
    for data in (b"", b"\xc1", pack_map(made)[:-1]):
        with pytest.raises(CorruptError):
            unpack_map(data)


def test_a_map_of_before_there_was_a_pause_is_read_and_pauses_nothing() -> None:
    made = cluster(3)
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(pack_map(made))[:4])
    assert unpack_map(old) == made
    assert not made.repair_paused


def test_a_pause_outlives_every_change_of_the_map() -> None:
    old = msgspec.structs.replace(cluster(8, classes=(PAIR,)), repair_paused=True)
    drained = changed(old, 3, draining=True)
    made = [
        drained,
        settled(drained, 2, "host", range(64)),
        with_overrides(old, old.pool(2, "host"), [Override(1, 1, 5)]),
        with_pools(old, pools_for([StorageClass(0, "three", 1, 2)], 2)),
        unpack_map(pack_map(old)),
        applied(old, difference(old, drained)),
    ]
    assert all(one.repair_paused for one in made)
    assert not applied(old, difference(old, msgspec.structs.replace(drained, repair_paused=False))).repair_paused


@pytest.mark.parametrize(
    "pool",
    [
        Pool(2, "host", 3, (Override(8, 0, 1),)),
        Pool(2, "host", 3, (Override(0, 2, 1),)),
        Pool(2, "host", 3, (Override(1, 0, 1), Override(0, 0, 1))),
        Pool(2, "host", 3, (Override(1, 0, 1), Override(1, 0, 2))),
        Pool(2, "host", 3, before=(Before(9, ((1, 2),)),)),
        Pool(2, "host", 3, before=(Before(1, ((1, 2, 3),)),)),
    ],
)
def test_pools_that_cannot_be_are_refused(pool: Pool) -> None:
    with pytest.raises(UsageError, match="no such cluster map"):
        checked(ClusterMap(1, (), (pool,)))


def test_names_with_slashes_are_refused() -> None:
    with pytest.raises(UsageError, match="with a /"):
        new_map([Disk(1, 1, "a/b")], [])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_difference_leads_to_the_same_bytes(seed: int) -> None:
    chance = random.Random(seed)
    old = cluster(8, classes=(PAIR,))
    for _ in range(chance.randrange(3)):
        old = changed(old, chance.randrange(8), draining=True)
    new = old
    for _ in range(chance.randrange(4)):
        number = chance.randrange(10)
        disk = new.by_id.get(number, Disk(number, 50, f"h{number:03}"))
        new = with_disks(
            new, [msgspec.structs.replace(disk, draining=chance.random() < 0.5, weight=chance.randrange(99))]
        )
        if chance.random() < 0.3:
            new = settled(new, 2, "host", range(0, 64, 2))
        if chance.random() < 0.3:
            new = with_overrides(new, new.pool(2, "host"), [Override(chance.randrange(64), 1, chance.randrange(8))])
        if chance.random() < 0.3:
            new = msgspec.structs.replace(new, epoch=new.epoch + 1, repair_paused=not new.repair_paused)
        if chance.random() < 0.3:
            new = with_pools(new, pools_for([StorageClass(0, "three", 1, 2)], 2))
    delta = difference(old, new)
    assert pack_map(applied(old, delta)) == pack_map(new)
    if new is not old:
        with pytest.raises(UsageError, match="another map"):
            applied(new, delta)


def test_pools_are_as_large_as_there_are_disks() -> None:
    assert (
        group_bits(12, 12) == 7 and group_bits(100, 12) == 10 and group_bits(10_000, 2) == 16 and group_bits(0, 3) == 0
    )
    with pytest.raises(UsageError, match="no pool"):
        cluster(3).pool(7, "host")


# -- evenness


@pytest.mark.parametrize(("hosts", "width"), [(6, 2), (13, 12)])
def test_the_load_of_a_repair_is_spread_evenly(hosts: int, width: int) -> None:
    made = cluster(hosts, classes=(StorageClass(0, "x", 1, width - 1),) if width < 12 else (COLD,))
    pool = made.pool(width, "host")
    even = with_overrides(made, pool, balanced(made, pool))
    found = mapping(even, width)
    weights = {disk.id: disk.weight for disk in made.disks}
    assert fan_out(found.table, weights) < 1.3
    counts = np.bincount(found.table.ravel())
    assert counts.max() / counts.mean() < 1.05
    assert all(len(set(row)) == width for row in found.table)


@pytest.mark.slow
@pytest.mark.parametrize(("hosts", "width"), [(12, 2), (12, 5), (24, 2), (24, 12), (40, 2), (40, 5), (40, 12)])
def test_the_load_of_a_repair_is_spread_evenly_in_larger_clusters(hosts: int, width: int) -> None:
    test_the_load_of_a_repair_is_spread_evenly(hosts, width)


def test_weights_count_in_evening_out() -> None:
    disks = [Disk(number, 100 if number < 8 else 200, f"h{number}") for number in range(12)]
    made = new_map(disks, [PAIR])
    found = mapping(with_overrides(made, made.pools[0], balanced(made, made.pools[0])), 2)
    counts = np.bincount(found.table.ravel())
    assert abs(counts[8:].mean() / counts[:8].mean() - 2) < 0.05


# -- what if


def test_what_a_lost_host_would_mean() -> None:
    made = cluster(14, 2)
    pool = made.pool(12, "host")
    table = mapping(made).table
    lost = disks_of(made, "h003")
    bytes_by_group = dict.fromkeys(range(pool.groups), 8000)
    loss = what_if(made, pool, 8, bytes_by_group, lost)
    hit = int(np.isin(table, lost).any(axis=1).sum())
    assert loss.groups_by_spare == {3: hit, 4: pool.groups - hit}
    assert loss.moved_bytes == 1000 * hit == sum(loss.received_bytes.values())
    assert loss.read_bytes == 8000 * hit and not set(lost) & set(loss.received_bytes)
    worst = what_if(made, pool, 8, bytes_by_group, [disk.id for disk in made.disks[:10]])
    assert min(worst.groups_by_spare) == -1
    with pytest.raises(UsageError, match="no disk"):
        disks_of(made, "nowhere")
