"""Storage classes: made once, given to directories and files, checked wherever they are named."""

import errno

import pytest
from fs_place import Place

from stoker.core.errors import CorruptError, UsageError
from stoker.fs.meta import Tree, fsck
from stoker.fs.meta.calls import READ, WRITE, Caller, GetAttr, ListClasses, MakeClass, Mkdir, SetClass, Symlink, Write
from stoker.fs.meta.keys import ROOT, class_key
from stoker.fs.meta.slices import Slice
from stoker.fs.meta.storage_class import (
    Shape,
    StorageClass,
    check_class,
    coded,
    pack_class,
    parse_code,
    unpack_class,
)


def made(place: Place, wanted: StorageClass) -> int:
    return place.volume.run(MakeClass(wanted)).value


def test_a_volume_begins_with_one_copy(place: Place) -> None:
    assert place.volume.run(ListClasses()).classes == (StorageClass(0, "single"),)
    assert place.volume.run(GetAttr(ROOT)).attr.storage_class == 0


def test_classes_get_the_next_number_and_differ_in_name(place: Place) -> None:
    assert made(place, coded("cold", 8, 4)) == 1
    assert made(place, StorageClass(77, "pair", 1, 1)) == 2
    place.refused(errno.EEXIST, MakeClass(StorageClass(0, "cold")))
    place.refused(errno.EPERM, MakeClass(StorageClass(0, "mine")), caller=Caller(1000, 1000))
    classes = place.volume.run(ListClasses()).classes
    assert [(one.id, one.name, one.text) for one in classes] == [
        (0, "single", "1"),
        (1, "cold", "8+4"),
        (2, "pair", "2"),
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        StorageClass(0, ""),
        StorageClass(0, "a b"),
        StorageClass(0, "x" * 64),
        StorageClass(0, "a", 1, 9),
        StorageClass(0, "a", 3, 2),
        StorageClass(0, "a", 8, 1),
        StorageClass(0, "a", 17, 4),
        StorageClass(0, "a", 8, 5),
        StorageClass(0, "a", cell_bytes=5000),
        StorageClass(0, "a", cell_bytes=2 << 20),
        StorageClass(0, "a", small_bytes=4096),
        StorageClass(0, "a", small_copies=3),
        StorageClass(0, "a", small_bytes=2 << 20, small_copies=3),
        StorageClass(0, "a", small_bytes=4096, small_copies=10),
    ],
)
def test_what_cannot_be_a_class_is_refused(place: Place, wanted: StorageClass) -> None:
    with pytest.raises(UsageError, match="no such storage class"):
        check_class(wanted)
    place.refused(errno.EINVAL, MakeClass(wanted))


def test_the_shape_of_a_slice_follows_from_class_and_size() -> None:
    cold = coded("cold", 8, 4)
    assert cold.shape(cold.small_bytes) == Shape(1, 4, 3)
    assert cold.shape(cold.small_bytes + 1) == Shape(8, 4, 10)
    assert StorageClass(0, "pair", 1, 1).shape(10) == Shape(1, 1, 2)
    assert StorageClass(0, "three", 1, 2, acknowledge="k+1").shape(10) == Shape(1, 2, 2)
    assert StorageClass(0, "three", 1, 2, acknowledge="all").shape(10) == Shape(1, 2, 3)
    assert StorageClass(0, "single").shape(10) == Shape(1, 0, 1)
    assert StorageClass(0, "strict", 8, 4, acknowledge="all").shape(10).needed == 12


def test_what_is_made_in_a_directory_has_its_class(place: Place) -> None:
    cold = made(place, coded("cold", 8, 4))
    tree, session = place.tree(), place.session()
    folder = tree.mkdir("/d").ino
    changed = place.volume.run(SetClass(folder, cold))
    assert changed.attr.storage_class == cold
    tree.makedirs("/d/e/f")
    assert tree.create("/d/e/f/file").attr.storage_class == cold
    assert tree.create("/other").attr.storage_class == 0
    file = place.file(b"plain", session)
    assert place.volume.run(SetClass(file, cold), session=session).attr.storage_class == cold


def test_a_class_is_its_owners_to_give_and_must_be_there(place: Place) -> None:
    tree = place.tree(1000)
    mine = tree.mkdir("/mine").ino
    place.refused(errno.EPERM, SetClass(mine, 0), caller=Caller(1001, 1001))
    assert place.volume.run(SetClass(mine, 0), caller=Caller(1000, 1000)).ino == mine
    for number in (1, -1, 1 << 40):
        place.refused(errno.EINVAL, SetClass(mine, number))
    link = place.volume.run(Symlink(ROOT, b"link", b"mine")).ino
    place.refused(errno.EINVAL, SetClass(link, 0))


def test_a_slice_names_a_class_that_is_there(place: Place) -> None:
    session = place.session()
    file = place.file(b"file", session, READ | WRITE)
    one, two = place.slices(10, 10)
    place.refused(errno.EINVAL, Write(file, (Slice(one.id, 0, 10, 1),)), session=session)
    cold = made(place, coded("cold", 4, 2))
    place.volume.run(Write(file, (Slice(one.id, 0, 10, cold), two)), session=session)


def test_fsck_finds_classes_that_are_gone_or_doubled(place: Place) -> None:
    cold = made(place, coded("cold", 8, 4))
    folder = place.volume.run(Mkdir(ROOT, b"d", 0o755)).ino
    place.volume.run(SetClass(folder, cold))
    engine = place.volume.engine
    kept = engine.get(class_key(cold))
    assert kept is not None

    def rules(key: bytes, value: bytes | None) -> set[str]:
        engine.txn(None, {key: value})
        return {fault.rule for fault in fsck(engine)}

    doubled = pack_class(StorageClass(cold, "single"))
    assert rules(class_key(cold), doubled) == {"storage classes differ in name"}
    assert rules(class_key(cold), pack_class(StorageClass(5, "x"))) == {"a storage class stands under its number"}
    assert rules(class_key(cold), b"\xc1") == {"rows are readable", "storage classes are there"}
    assert rules(class_key(cold), None) == {"storage classes are there"}
    assert rules(class_key(cold), kept) == set()
    far = pack_class(StorageClass(3, "far"))
    assert rules(class_key(3), far) == {"storage classes are numbered from 0"}
    assert rules(class_key(3), None) == set()


def test_a_class_comes_back_from_its_bytes_and_damaged_ones_are_told() -> None:
    wanted = coded("cold", 16, 4, domain="rack")
    assert unpack_class(pack_class(wanted)) == wanted
    for data in (b"", b"\xc1", pack_class(wanted)[:-3], pack_class(StorageClass(0, "a b"))):
        with pytest.raises(CorruptError):
            unpack_class(data)


def test_codes_are_read_from_text() -> None:
    assert parse_code("8+4") == (8, 4)
    assert parse_code("2") == (1, 1)
    for text in ("", "0", "8+", "+4", "8+4+1", "a", "-1", "123"):
        with pytest.raises(UsageError):
            parse_code(text)


def test_trees_keep_the_class_over_rename(place: Place) -> None:
    cold = made(place, coded("cold", 8, 4))
    tree: Tree = place.tree()
    folder = tree.mkdir("/d").ino
    place.volume.run(SetClass(folder, cold))
    tree.create("/d/file")
    tree.rename("/d/file", "/file")
    assert tree.stat("/file").attr.storage_class == cold
