"""Care under virtual time: real disks in this process die, come back, are drained, and every byte stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from care_place import PAIR, CaredFor

from stoker.core.errors import NotFoundError, StokerError, StoreError
from stoker.core.units import KiB
from stoker.fs.cluster import ClusterStore
from stoker.fs.disk.interface import ShardId
from stoker.fs.meta.calls import READ, WRITE, BeginSession, Create, Write
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
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
    cluster.care.pause(pause=True)
    cluster.live(20)
    after = cluster.care.repairs.status(())
    assert after.paused and after.repaired == before.repaired and after.oldest_seconds >= 20
    cluster.care.pause(pause=False)
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


def test_what_clients_report_is_not_believed_blindly(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR, bytes_per_second=100 * KiB)
    cluster.live(5)
    slices = cluster.written(3, 5000)
    cluster.settle()
    wrong = [Slice(1, 1, 2**60), Slice(-1, 1, 10), Slice(7, -1, 10), Slice(2**64, 1, 10), Slice(8, 1, 0)]
    unknown = [Slice(10**6, 1, 10, cluster.storage_class), Slice(10**6, 1, 10, 999)]
    cluster.care.noted([*wrong, *unknown, *slices])
    cluster.live(1)
    status = cluster.care.repairs.status(())
    assert (status.repaired, status.waiting, status.failed) == (3, 1, 1)
    assert "no such storage class" in status.error
    cluster.live(6000)
    assert cluster.care.repairs.status(()).waiting == 0
    cluster.readable(slices)
    cluster.close()


def test_a_repair_that_a_disk_refuses_is_tried_again(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR)
    cluster.live(5)
    slices = cluster.written(10, 5000)
    cluster.settle()
    refusing = cluster.disks[1]
    state = refusing.disk.status().shards
    assert state
    cluster.set(0, draining=True)
    put = refusing.disk.put

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("disk is tired")

    refusing.disk.put = refuse  # type: ignore[method-assign]
    cluster.live(3)
    before = cluster.care.repairs.status(())
    assert before.waiting and "were refused by the disks" in before.error
    assert cluster.disks[0].disk.status().shards  # nothing is removed before it is elsewhere
    refusing.disk.put = put  # type: ignore[method-assign]
    cluster.live(20)
    cluster.settle()
    assert cluster.disks[0].disk.status().shards == 0
    cluster.readable(slices)
    cluster.close()


def test_a_slice_beyond_help_keeps_no_group_from_settling(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 4, PAIR)
    cluster.live(5)
    slices = cluster.written(10, 5000)
    cluster.settle()
    cluster.care.noted([Slice(10**6, 1, 10, 999)])
    cluster.live(2)
    cluster.set(0, draining=True)
    cluster.live(30)
    status = cluster.care.repairs.status(cluster.map.pools)
    assert (status.waiting, status.unsettled_groups) == (1, 0)
    cluster.readable(slices)
    cluster.close()


def test_passes_that_find_the_same_come_less_often(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 5, PAIR, out_seconds=10**6)
    cluster.live(5)
    slices = cluster.written(10, 5000)
    cluster.settle()
    passes = 0
    examine = ClusterStore.examine

    def counted(store: ClusterStore, **how: Any) -> Any:
        nonlocal passes
        passes += 1
        return examine(store, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClusterStore, "examine", counted)
        cluster.dead.add(1)
        cluster.live(20)
        cluster.set(0, draining=True)
        cluster.live(600)
    assert 2 <= passes <= 15  # one each 5 s would be 120
    assert cluster.care.repairs.status(cluster.map.pools).unsettled_groups  # nobody knows what the silent disk has
    cluster.dead.clear()
    cluster.live(20)
    assert not cluster.care.repairs.status(cluster.map.pools).unsettled_groups
    cluster.readable(slices)
    cluster.close()


def test_what_failed_is_tried_at_once_when_the_map_changes(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR)
    cluster.live(5)
    slices = cluster.written(10, 5000)
    cluster.settle()
    cluster.set(0, draining=True)
    puts = {one: one.disk.put for one in cluster.disks[1:]}

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("disk is tired")

    for one in puts:
        one.disk.put = refuse  # type: ignore[method-assign]
    cluster.live(200)
    assert cluster.care.repairs.status(()).waiting
    for one, put in puts.items():
        one.disk.put = put  # type: ignore[method-assign]
    cluster.add_disk()
    cluster.live(10)  # each waits for up to two minutes otherwise
    assert not cluster.care.repairs.status(()).waiting
    cluster.settle()
    cluster.readable(slices)
    cluster.close()


def test_remains_of_a_slice_are_told_apart_from_a_loss(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path)
    cluster.live(5)
    kept, under_way = cluster.written(2)
    session = cluster.volume.run(BeginSession(10**15)).value
    ino = cluster.volume.run(Create(ROOT, b"file", 0o644, access=READ | WRITE), session=session).ino
    cluster.volume.run(Write(ino, (kept,)), session=session)
    for counted in cluster.disks[:5]:
        for data in (kept, under_way):
            counted.disk.remove([ShardId(data.id, data.generation, index) for index in range(12)])
    cluster.care.repairs.examine_soon()
    cluster.live(2)
    status = cluster.care.repairs.status(())
    assert (status.exposure, status.remains, status.waiting) == ({-1: 1}, 1, 0)
    cluster.close()


def test_garbage_goes_in_time(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 3, PAIR)
    cluster.live(5)
    kept, freed, never_shown = (cluster.written(1, 5000)[0] for _ in range(3))
    session = cluster.volume.run(BeginSession(60 * 10**9)).value
    ino = cluster.volume.run(Create(ROOT, b"file", 0o644, access=READ | WRITE), session=session).ino
    cluster.volume.run(Write(ino, (freed,)), session=session)
    cluster.volume.run(Write(ino, (kept,)), session=session)  # over it
    cluster.live(130)
    assert [data.id for data in cluster.store.inventory()] == [kept.id, freed.id, never_shown.id]
    cluster.live(4000, every=10)
    held = [data.id for data in cluster.store.inventory()]
    assert kept.id in held and freed.id not in held
    assert cluster.care.trouble == {}
    cluster.readable([kept])
    cluster.close()


def test_a_pause_outlives_a_change_of_leaders(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 5, PAIR, masters=2)
    cluster.live(5)
    slices = cluster.written(20, 5000)
    cluster.settle()
    cluster.care.pause(pause=True)
    cluster.set(2, draining=True)
    cluster.live(5)
    cluster.leader = 1
    cluster.live(30)
    status = cluster.care.repairs.status(())
    assert status.paused
    assert status.repaired == 0
    assert status.waiting > 0
    cluster.leader = 0
    cluster.live(5)
    assert cluster.care.repairs.status(()).paused
    cluster.care.pause(pause=False)
    cluster.leader = 1
    cluster.settle()
    assert cluster.disks[2].disk.status().shards == 0
    cluster.readable(slices)
    cluster.close()


def test_a_pause_needs_a_map(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 0)
    with pytest.raises(NotFoundError):
        cluster.care.pause(pause=True)
    cluster.close()
