"""Orders of operators, and what they are told before and after: against a cluster of real disks."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from care_place import COLD, PAIR, CaredFor

from stoker.core.errors import NotFoundError, TransientError, UsageError
from stoker.fs.care.explaining import explain, group_bytes, if_lost, slices_of
from stoker.fs.care.orders import change_map, chosen, drained, evened, moves, spared
from stoker.fs.care.waiting import QUEUE_MAX, Bucket, Pace, Queue, Waiting
from stoker.fs.cluster.repairing import exposure
from stoker.fs.meta import Caller, MetaError, Volume
from stoker.fs.meta.calls import READ, WRITE, BeginSession, Create, PutMap, Write
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.slices import Slice
from stoker.fs.place import ClusterMap, Disk, new_map
from stoker.fs.place.changing import with_disks
from stoker.fs.place.map import pack_map


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CaredFor]:
    made = CaredFor(tmp_path, 5, PAIR)
    made.live(5)
    yield made
    made.close()


# -- changes of the map


def test_an_order_is_made_anew_where_somebody_was_faster(cluster: CaredFor) -> None:
    tries = []

    def change(there: ClusterMap) -> ClusterMap:
        tries.append(there.epoch)
        if len(tries) == 1:
            cluster.set(4, draining=True)
        return drained(there, chosen(there, (1,), ""), undo=False)

    before, after = change_map(cluster.volume, change)
    assert tries == [before.epoch - 1, before.epoch]
    assert [disk.draining for disk in after.disks] == [False, True, False, False, True]
    assert change_map(cluster.volume, lambda there: there) == (after, after)


def test_an_order_gives_up_where_the_map_never_rests(cluster: CaredFor) -> None:
    def change(there: ClusterMap) -> ClusterMap:
        rival = with_disks(there, [msgspec.structs.replace(there.disks[0], weight=there.disks[0].weight + 1)])
        cluster.volume.run(PutMap(there.epoch, rival.epoch, pack_map(rival)))
        return drained(there, chosen(there, (1,), ""), undo=False)

    with pytest.raises(TransientError, match="changes all the time"):
        change_map(cluster.volume, change)


def test_there_is_no_order_without_a_map() -> None:
    with Volume.format("memory://") as volume, pytest.raises(NotFoundError, match="no cluster map yet"):
        change_map(volume, lambda there: there)


def test_disks_are_chosen_by_number_or_host(cluster: CaredFor) -> None:
    there = cluster.map
    assert [disk.id for disk in chosen(there, (3, 1, 3), "h02")] == [1, 2, 3]
    for numbers, host in (((), ""), ((9,), ""), ((), "nowhere")):
        with pytest.raises(UsageError):
            chosen(there, numbers, host)


def test_the_last_disk_is_not_drained(cluster: CaredFor) -> None:
    there = cluster.map
    with pytest.raises(UsageError, match="no disk would be left"):
        drained(there, there.disks, undo=False)
    most = drained(there, there.disks[1:], undo=False)
    assert [one.degraded != "" for one in moves(there, most)] == [False, True]
    assert drained(most, most.disks[:1], undo=True) is most
    assert sum(one.moved_slots for one in moves(there, there)) == 0


def test_disks_are_spared_for_a_time(cluster: CaredFor) -> None:
    there = spared(cluster.map, chosen(cluster.map, (2,), ""), 77)
    assert [disk.spared_until_ns for disk in there.disks] == [0, 0, 77, 0, 0]
    assert sum(one.moved_slots for one in moves(cluster.map, there)) == 0


def test_a_cluster_is_evened_out() -> None:
    there = new_map([Disk(n, 10, f"h{n}", uuid=f"u{n}") for n in range(7)], [PAIR])
    made, told = evened(there)
    (one,) = [one for one in told if one.width == 2]
    assert made.epoch == there.epoch + 1
    assert one.moved_slots > 0
    assert 1.0 <= one.fullest_after < one.fullest_before
    assert one.fan_out_after < one.fan_out_before
    again, told = evened(made)
    assert [one.moved_slots for one in told] == [0] * len(told) and again is made


# -- what is told


def test_a_file_is_explained_slice_by_slice(cluster: CaredFor) -> None:
    slices = cluster.written(3, 5000)
    session = cluster.volume.run(BeginSession(60 * 10**9)).value
    ino = cluster.volume.run(Create(ROOT, b"file", 0o600, access=READ | WRITE), session=session).ino
    cluster.volume.run(Write(ino, tuple(slices)), session=session)
    cluster.volume.end_session(session)
    assert list(slices_of(cluster.volume, b"/file", Caller())) == slices
    with pytest.raises(MetaError):
        list(slices_of(cluster.volume, b"/file", Caller(1000, 1000)))
    cluster.settle()
    one = explain(cluster.store, cluster.classes(slices[0].storage_class), slices[0])
    assert (one.code, one.domain, one.spare, one.why, one.moving) == ("2", "host", 1, (), False)
    assert [shard.state for shard in one.shards] == ["in place", "in place"]
    assert len({shard.host for shard in one.shards}) == 2


def test_what_is_wrong_with_a_slice_is_a_sentence(cluster: CaredFor) -> None:
    (data,) = cluster.written(1, 5000)
    made = cluster.classes(data.storage_class)
    first, second = (shard.disk for shard in explain(cluster.store, made, data).shards)
    cluster.dead = {first}
    assert explain(cluster.store, made, data).why == ("shard 0 is on no disk that answers",)
    cluster.live(12)
    cluster.maps.refresh()
    assert explain(cluster.store, made, data).why == (f"shard 0 belongs on disk {first}, which is down",)
    cluster.dead = {first, second}
    assert "1 shards too few answer: it cannot be read now" in explain(cluster.store, made, data).why
    cluster.dead = set()
    cluster.live(15)
    cluster.care.pause(pause=True)
    cluster.set(first, draining=True)
    (astray, moving) = explain(cluster.store, made, data).why
    assert astray.startswith(f"shard 0 is on disk {first}, and belongs on disk ") and "moving" in moving


def test_what_a_loss_would_mean_is_what_it_means(tmp_path: Path) -> None:
    cluster = CaredFor(tmp_path, 14)
    cluster.live(5)
    cluster.written(8, 60_000)
    cluster.settle()
    held = group_bytes(cluster.store.examine(), cluster.classes)
    (told,) = if_lost(cluster.map, held, [0, 1, 2, 3, 4])
    assert (told.code, told.bytes) == ("8+4", 480_000)
    assert sum(told.received_bytes.values()) == told.moved_bytes > 0
    cluster.dead = {0, 1, 2, 3, 4}
    truth = exposure(cluster.store.examine(silent=[]))
    assert min(truth) == min(told.groups_by_spare) and max(truth) == max(told.groups_by_spare)
    assert (told.lost_bytes > 0) == (min(truth) < 0)
    cluster.dead = set()
    assert if_lost(cluster.map, held, [])[0].groups_by_spare.keys() == {4}
    assert cluster.classes(cluster.storage_class).text == COLD.text
    cluster.close()


# -- the queue and the pace


def item(number: int, spare: int, since: float = 0.0, cost: int = 10) -> Waiting:
    return Waiting(Slice(number, 1, 10), spare, since, cost)


def test_the_most_exposed_goes_first_then_who_waited_longest() -> None:
    queue = Queue()
    for one in (item(1, 4), item(2, 0, 5.0), item(3, 1), item(4, 0, 3.0)):
        assert queue.add(one)
    assert queue.add(item(3, 0, 9.0))  # it is worse than was known
    assert (len(queue), queue.bytes, queue.oldest_seconds(10.0)) == (4, 40, 10.0)
    assert queue.by_spare() == {0: 3, 4: 1}
    taken = [queue.take(0.0) for _ in range(5)]
    assert [one and one.slice.id for one in taken] == [3, 4, 2, 1, None]
    assert queue.bytes == 0


def test_what_fails_waits_longer_each_time_and_then_for_a_pass() -> None:
    queue, one, waits, now = Queue(), item(1, 0), [], 0.0
    queue.add(one)
    while (taken := queue.take(now)) is not None:
        queue.failed(taken, now)
        if not len(queue):
            break
        assert queue.take(now) is None
        waits.append(one.not_before - now)
        now = one.not_before
    assert waits == [15, 30, 60, 120, 240, 480, 600, 600]


def test_a_queue_is_bounded() -> None:
    queue = Queue()
    for number in range(QUEUE_MAX):
        queue.add(item(number, 1))
    assert not queue.add(item(QUEUE_MAX, 0))
    assert (len(queue), queue.refused) == (QUEUE_MAX, 1)
    queue.clear()
    assert queue.take(0.0) is None


def test_a_bucket_lets_through_what_it_holds() -> None:
    bucket = Bucket(100)
    assert [bucket.take(60, 0.0), bucket.take(60, 0.0), bucket.take(60, 0.5)] == [True, False, True]
    assert not bucket.take(1000, 1.0)
    assert bucket.take(1000, 2.0)  # larger than the bucket: paid for afterwards
    assert not bucket.take(1, 10.0)
    assert bucket.take(1, 11.5)
    assert not bucket.take(100, 0.0)  # a clock that goes back brings nothing
    assert Bucket(0).take(10**12, 0.0)


def test_a_pace_is_that_of_the_last_minute() -> None:
    pace = Pace(10.0)
    assert pace.rate(5.0) == 0.0
    for second in range(100):
        pace.done(1000, float(second))
    assert 800 < pace.rate(100.0) < 1100
    assert pace.rate(200.0) == 0.0
