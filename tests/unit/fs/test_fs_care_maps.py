"""The cluster map as a row of the volume, and who gives it, the classes and the disks' holders to a store."""

import errno

import msgspec
import pytest
from fs_place import Place

from stoker.core.errors import CorruptError, NotFoundError, UnavailableError, UsageError
from stoker.fs.care.holders import Targets
from stoker.fs.care.maps import ClassesByNumber, MapSource
from stoker.fs.meta import fsck
from stoker.fs.meta.calls import Caller, GetMap, MakeClass, PutMap
from stoker.fs.meta.cluster_map import MAP_BYTES_MAX
from stoker.fs.meta.keys import CLUSTER_MAP
from stoker.fs.meta.storage_class import coded
from stoker.fs.place import ClusterMap, Disk, new_map
from stoker.fs.place.changing import with_disks
from stoker.fs.place.map import pack_map

VOLUME = "0" * 8 + "-0000-4000-8000-" + "0" * 12


def a_map(address: str = "127.0.0.1:1") -> ClusterMap:
    return new_map([Disk(n, 1, f"h{n}", address=address, uuid=f"u{n}") for n in range(3)], [coded("a", 1, 1)])


def put(place: Place, made: ClusterMap, expected: int) -> None:
    place.volume.run(PutMap(expected, made.epoch, pack_map(made)))


def test_a_map_is_put_against_the_one_that_was_seen(place: Place) -> None:
    assert place.volume.run(GetMap()).data == b""
    first = a_map()
    put(place, first, 0)
    put(place, first, 0)  # once more, as who lost the answer does
    place.refused(errno.ESTALE, PutMap(0, 2, b"another"))
    place.refused(errno.ESTALE, PutMap(0, 1, b"another"))
    second = with_disks(first, [Disk(9, 1, "h9")])
    put(place, second, 1)
    place.refused(errno.ESTALE, PutMap(0, 1, pack_map(first)))
    assert place.volume.run(GetMap(1)).data == place.volume.run(GetMap()).data == pack_map(second)
    assert place.volume.run(GetMap(2)).data == b""


def test_what_cannot_be_a_map_is_refused(place: Place) -> None:
    place.refused(errno.EPERM, PutMap(0, 1, b"x"), caller=Caller(1000, 1000))
    place.refused(errno.EFBIG, PutMap(0, 1, bytes(MAP_BYTES_MAX + 1)))
    for wrong in (
        PutMap(0, 0, b"x"),
        PutMap(2, 1, b"x"),
        PutMap(-1, 1, b"x"),
        PutMap(0, 1, b""),
        PutMap(0, 2**64, b""),
    ):
        place.refused(errno.EINVAL, wrong)
    place.volume.run(PutMap(0, 1, bytes(MAP_BYTES_MAX)))
    assert fsck(place.volume.engine) == []


def test_fsck_knows_the_row() -> None:
    place = Place()
    put(place, a_map(), 0)
    assert fsck(place.volume.engine) == []
    place.volume.engine.txn(None, {CLUSTER_MAP: b"short"})
    assert [fault.rule for fault in fsck(place.volume.engine)] == ["rows are readable"]


def test_a_source_gives_the_newest_map_that_it_knows(place: Place) -> None:
    source = MapSource(place.volume)
    with pytest.raises(NotFoundError, match="no cluster map"):
        source()
    first = a_map()
    put(place, first, 0)
    assert source() == first
    assert source() is source()
    put(place, with_disks(first, [Disk(9, 1, "h9")]), 1)
    assert source() == first  # nobody waits for the metadata
    assert source.refresh() is source()
    assert source().epoch == 2
    assert source.learn(first).epoch == 2


def test_a_damaged_map_is_told_and_the_known_one_kept(place: Place) -> None:
    source = MapSource(place.volume)
    put(place, a_map(), 0)
    known = source()
    place.volume.run(PutMap(1, 2, b"no map"))
    with pytest.raises(CorruptError, match="not readable"):
        source.refresh()
    assert source() is known


def test_a_source_is_kept_fresh(place: Place) -> None:
    source = MapSource(place.volume)
    put(place, a_map(), 0)
    source.keep_fresh(every_seconds=60)
    source.want()
    while source.known is None:
        pass
    assert source().epoch == 1
    source.close()
    source.close()


def test_classes_are_known_by_number(place: Place) -> None:
    classes = ClassesByNumber(place.volume)
    assert classes(0).name == "single"
    place.volume.run(MakeClass(coded("cold", 8, 4)))
    assert classes(1).text == "8+4"
    with pytest.raises(UsageError, match="no such storage class"):
        classes(2)


def test_a_disk_that_moves_gets_another_connection() -> None:
    now = a_map("127.0.0.1:1")
    targets = Targets(lambda: now, VOLUME)
    first = targets(0)
    assert targets(0) is first
    now = with_disks(now, [msgspec.structs.replace(now.by_id[0], address="127.0.0.1:2"), Disk(7, 1, "h7")])
    assert targets(0).address == "127.0.0.1:2"
    for number in (7, 8):
        with pytest.raises(UnavailableError, match="no address"):
            targets(number)
    targets.close()
    with pytest.raises(UnavailableError, match="closed"):
        targets(1)


def test_a_map_names_a_disk_once() -> None:
    with pytest.raises(UsageError, match="two numbers"):
        new_map([Disk(0, 1, "a", uuid="x"), Disk(1, 1, "b", uuid="x")], [])
