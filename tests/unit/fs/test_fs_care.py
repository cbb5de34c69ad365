"""Care under virtual time: real disks in this process die, come back, are drained, and every byte stays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from care_place import PAIR, CaredFor

from stoker.core.errors import StokerError
from stoker.core.units import KiB
from stoker.fs.place import ClusterMap, Disk


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CaredFor]:
    made = CaredFor(tmp_path, out_seconds=600)
    yield made
    made.close()


def test_four_of_twelve_may_die_and_then_the_other_four(cluster: CaredFor) -> None:
    cluster.live(5)
    assert [disk.health for disk in cluster.map.disks] == ["up"] * 12
    slices = [*cluster.written(4), *cluster.written(2, 3000)]
    cluster.settle()
    # Four more disks stand by in time: twelve shards want twelve hosts.
    for _ in range(4):
        cluster.add_disk()
    cluster.live(5)
    cluster.settle()
    cluster.dead = {0, 1, 2, 3}
    cluster.live(30)
    assert {cluster.health(at) for at in range(4)} == {"down"}
    cluster.readable(slices)
    assert min(cluster.care.repairs.status(()).exposure) < 4
    cluster.live(590)
    assert {cluster.health(at) for at in range(4)} == {"out"}
    cluster.settle()
    assert cluster.care.repairs.status(()).exposure == {4: 6}
    cluster.dead = {0, 1, 2, 3, 4, 5, 6, 7}
    cluster.readable(slices)


def test_a_drain_copies_and_never_decodes(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 13)
    cluster.live(5)
    slices = cluster.written(6)
    cluster.settle()
    held = cluster.disks[5].disk.status().shards
    assert held
    cluster.set(5, draining=True)
    cluster.settle()
    status = cluster.care.repairs.status(())
    assert (status.copied_shards, status.rebuilt_shards) == (held, 0)
    assert cluster.disks[5].disk.status().shards == 0
    assert status.exposure == {4: 6}
    cluster.readable(slices)
    cluster.set(5, draining=False)
    cluster.settle()
    assert cluster.disks[5].disk.status().shards == held
    cluster.close()


def test_a_disk_that_comes_back_is_taken_back_with_what_it_holds(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 4, PAIR)
    cluster.live(5)
    slices = cluster.written(20, 5000)
    cluster.settle()
    cluster.dead = {1}
    cluster.live(75)
    cluster.settle()
    assert cluster.health(1) == "out"
    number = cluster.number(1)
    more = cluster.written(20, 5000)
    cluster.dead = set()
    cluster.live(10)
    cluster.settle()
    assert (cluster.health(1), cluster.number(1)) == ("up", number)
    cluster.dead = {0}
    cluster.readable([*slices, *more])
    assert sum(counted.disk.status().shards for counted in cluster.disks) == 80
    cluster.close()


def test_short_writes_are_repaired_at_once(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 13)
    cluster.live(5)
    cluster.settle()
    cluster.dead = {3, 4}
    slices = cluster.written(6)
    short = cluster.store.take_short()
    assert short
    cluster.dead = set()
    cluster.care.noted([one.slice for one in short])
    cluster.live(1)
    assert cluster.care.repairs.status(()).repaired == len(short)
    assert {seen.spare for seen in cluster.store.examine()} == {4}
    assert not any(seen.needs_repair for seen in cluster.store.examine())
    cluster.readable(slices)
    cluster.close()


def test_another_goes_on_where_care_was_killed(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 6, PAIR, masters=2, bytes_per_second=20_000, at_once=1)
    cluster.live(5)
    slices = cluster.written(40, 5000)
    cluster.settle()
    cluster.set(2, draining=True)
    cluster.live(3)
    half = cluster.disks[2].disk.status().shards
    assert half and cluster.care.repairs.status(()).waiting
    cluster.leader = 1
    cluster.settle()
    assert cluster.disks[2].disk.status().shards == 0
    assert not cluster.masters[0].leads
    cluster.readable(slices)
    cluster.close()


def test_two_who_believe_to_lead_do_no_harm(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR, masters=2)
    other = cluster.masters[1]
    other._leading = lambda: True
    cluster.live(5)
    slices = cluster.written(10, 5000)
    cluster.dead = {0}
    cluster.live(75)
    cluster.settle()
    assert cluster.health(0) == "out"
    assert other.leads and other.maps() == cluster.care.maps()
    cluster.readable(slices)
    assert {seen.spare for seen in cluster.store.examine()} == {1}
    cluster.close()


def test_the_map_may_change_amid_writes(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 4, PAIR)
    cluster.live(5)
    slices = cluster.written(5, 5000)
    for at in range(4):
        cluster.set(at, draining=True)
        slices += cluster.written(5, 5000)
        cluster.live(1)
        cluster.set(at, draining=False)
        slices += cluster.written(5, 5000)
        cluster.readable(slices)
        cluster.settle()
    assert {seen.spare for seen in cluster.store.examine()} == {1}
    cluster.readable(slices)
    cluster.close()


def test_repair_goes_at_its_pace_and_stops_when_told(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 6, PAIR, bytes_per_second=10 * KiB, at_once=2)
    cluster.live(5)
    cluster.written(60, 5000)
    cluster.settle()
    cluster.set(2, draining=True)
    cluster.live(2)
    before = cluster.care.repairs.status(())
    assert before.waiting > 0 and before.eta_seconds > 0 and before.waiting_by_spare == {1: before.waiting}
    cluster.care.repairs.paused = True
    cluster.live(20)
    after = cluster.care.repairs.status(())
    assert after.paused and after.repaired == before.repaired and after.oldest_seconds >= 20
    cluster.care.repairs.paused = False
    cluster.live(10)
    moved = cluster.care.repairs.status(()).repaired_bytes - after.repaired_bytes
    assert 50 * KiB < moved <= 10 * 10 * KiB + 2 * 10 * KiB
    cluster.settle()
    assert cluster.disks[2].disk.status().shards == 0
    cluster.close()


def test_a_map_that_is_too_large_is_told(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR)
    cluster.live(5)
    first = cluster.map
    many = tuple(Disk(number, 1, "h" * 60) for number in range(20_000))
    with pytest.raises(StokerError, match="too large to be put"):
        cluster.care._put(first, ClusterMap(first.epoch + 1, many, first.pools))
    assert cluster.map == first
    cluster.close()
