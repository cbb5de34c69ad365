"""Requests and rows that nobody in his right mind sends or stores: each is its own refusal, bounded, and told."""

import errno
import json
import tracemalloc
from pathlib import Path

import pytest
from fs_place import Place

from stoker.core.errors import CorruptError
from stoker.fs.meta import MetaError, Tree, Volume, fsck, keys
from stoker.fs.meta.acl import ACCESS_NAME, DEFAULT_NAME
from stoker.fs.meta.answers import Done, Entry, Number, Refusal
from stoker.fs.meta.calls import (
    READ,
    Call,
    Create,
    Lookup,
    Mkdir,
    Rename,
    RenewSession,
    SetAttr,
    SetLock,
    SetXattr,
    Usage,
)
from stoker.fs.meta.keys import ROOT
from stoker.fs.meta.locking import LOCKS_MAX, unpack_locks
from stoker.fs.meta.records import (
    FILE_BYTES_MAX,
    HAS_ACL,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    pack_attr,
    pack_count,
    pack_entry,
    unpack_attr,
    unpack_count,
)
from stoker.fs.meta.slices import Extent, laid, without


@pytest.mark.parametrize(
    "bad",
    [
        Call(Mkdir(ROOT, b"x", 0o755), session=1, seq=1 << 64),
        Call(Mkdir(ROOT, b"x", 0o755), session=1, seq=-1),
        Call(Mkdir(ROOT, b"x", 0o755), session=-1, seq=1),
        Call(Mkdir(ROOT, b"x", 0o755), session=1, seq=1, received=2),
        Call(SetLock(2, 1 << 70, True, whole=True), session=1),
        Call(Create(ROOT, b"x", 0o644, access=8), session=1),
        Call(Create(ROOT, b"x", 0o644, access=-1), session=1),
    ],
)
def test_a_call_that_no_field_can_hold_does_not_fail_its_neighbours(place: Place, bad: Call) -> None:
    session = place.session()
    place.file(b"f", session)
    answers = place.volume.submit([Call(Mkdir(ROOT, b"before", 0o755)), bad, Call(Mkdir(ROOT, b"behind", 0o755))])
    assert isinstance(answers[0], Entry)
    assert isinstance(answers[2], Entry)
    assert isinstance(answers[1], Refusal)
    assert place.tree().listdir("/") == [b"before", b"behind", b"f"]


def test_a_damaged_session_fails_its_own_calls_alone(place: Place) -> None:
    session = place.session()
    kept = place.volume.engine.get(keys.session_key(session))
    place.volume.engine.txn(None, {keys.session_key(session): b"short"})
    calls = [Call(Mkdir(ROOT, b"a", 0o755), session=session, seq=1), Call(Mkdir(ROOT, b"b", 0o755))]
    refused, made = place.volume.submit(calls)
    assert isinstance(refused, Refusal)
    assert refused.errno == errno.EIO
    assert isinstance(made, Entry)
    place.volume.engine.txn(None, {keys.session_key(session): kept})


def test_answers_stay_bounded_whatever_the_client_numbers(place: Place) -> None:
    session = place.session()
    first = place.volume.submit(
        [Call(RenewSession(), session=session, seq=10**6 + n, received=n + 1) for n in range(5)]
    )
    assert {answer.errno for answer in first if isinstance(answer, Refusal)} == {errno.ENOBUFS}
    assert place.volume.engine.scan(keys.answer_rows(session)) == []
    assert place.volume.submit([Call(RenewSession(), session=session, seq=1)]) == [Done()]


def test_creating_what_is_a_directory_is_refused_though_it_would_only_be_read(place: Place) -> None:
    place.tree().mkdir("/d")
    place.refused(errno.EISDIR, Create(ROOT, b"d", 0o644, access=READ), session=place.session())


def test_sparse_files_cannot_fill_the_volume_counter(place: Place) -> None:
    tree = place.tree()
    for number in range(66):
        tree.create(f"/{number}")
        tree.truncate(f"/{number}", FILE_BYTES_MAX)
    assert unpack_count(place.volume.engine.get(keys.BYTES)) == 66 * FILE_BYTES_MAX
    assert place.volume.run(Usage()).bytes == 2**63 - 1
    for number in range(66):
        tree.unlink(f"/{number}")
    assert place.volume.run(Usage()).bytes == 0


def test_giving_back_bits_of_a_lock_cannot_make_locks_without_end(place: Place) -> None:
    session = place.session()
    ino = place.file(b"f", session)
    place.volume.run(SetLock(ino, 1, True, 0, 10**6), session=session)
    bits = [Call(SetLock(ino, 1, None, 2 * n + 1, 2 * n + 2), session=session) for n in range(LOCKS_MAX + 10)]
    answers = place.volume.submit(bits)
    assert answers[-1] == Refusal(errno.ENOLCK)
    assert len(unpack_locks(place.volume.engine.get(keys.locks_key(ino)))) == LOCKS_MAX
    assert place.volume.run(SetLock(ino, 1, None, 0, 10**6), session=session) == Number(0)
    assert place.volume.engine.get(keys.locks_key(ino)) is None


def test_names_of_attributes_are_listed_without_their_values_in_memory(tmp_path: Path) -> None:
    with Volume.format(f"sqlite://{tmp_path}/volume.db?sync=off") as volume:
        tree = Tree(volume)
        tree.create("/f")
        volume.submit([Call(SetXattr(2, b"user.%d" % number, b"v" * 60_000)) for number in range(300)])
        tracemalloc.start()
        try:
            assert len(tree.listxattr("/f")) == 300
            tree.setxattr("/f", b"user.more", b"")
            assert tracemalloc.get_traced_memory()[1] < 9_000_000
        finally:
            tracemalloc.stop()


def test_extents_are_laid_as_if_one_by_one() -> None:
    below = [Extent(n * 10, 1 + n % 3, 0, 1000, n, 7) for n in range(40)]
    above = [Extent(n * 13 + 2, 9, 0, 5000, n * 50, 1 + n % 12) for n in range(25)]
    expected: list[Extent] = below
    for extent in above:
        expected = without(expected, extent.position, extent.end)
    assert laid(below, list(reversed(above))) == sorted([*expected, *above])
    assert laid([], above) == above
    assert laid(below, []) == below


# -- rows of other makers


def test_directories_below_each_other_are_told_not_followed_for_ever() -> None:
    volume = Volume.format("memory://")
    tree = Tree(volume)
    tree.makedirs("/a/b")
    tree.mkdir("/c")
    a, b = tree.stat("/a"), tree.stat("/a/b")
    a.attr.parent = b.ino
    volume.engine.txn(None, {keys.attr_key(a.ino): pack_attr(a.attr)})
    with pytest.raises(MetaError, match="below each other") as caught:
        volume.run(Rename(ROOT, b"c", b.ino, b"c"))
    assert caught.value.errno == errno.EIO
    assert fsck(volume.engine) != []


@pytest.mark.parametrize("data", [b"", b"\2\0\0\0", b"\1\0\0\0", b"\2\0\0\0\x20\0\7\0\0\0\0\0"])
def test_a_damaged_access_list_fails_who_needs_it_alone(data: bytes) -> None:
    volume = Volume.format("memory://", mode=0o777)
    ino = Tree(volume).mkdir("/d").ino
    attr = unpack_attr(volume.engine.get(keys.attr_key(ino)) or b"")
    attr.flags |= HAS_ACL | HAS_DEFAULT_ACL | HAS_XATTR
    rows = {keys.xattr_key(ino, ACCESS_NAME): data, keys.xattr_key(ino, DEFAULT_NAME): data}
    volume.engine.txn(None, {keys.attr_key(ino): pack_attr(attr), **rows})
    place = Place()
    calls = [
        Call(Lookup(ino, b"x"), place.tree(5).caller),
        Call(Mkdir(ino, b"x", 0o755)),
        Call(SetAttr(ino, mode=0o700)),
        Call(Mkdir(ROOT, b"made", 0o755)),
    ]
    answers = volume.submit(calls)
    assert [isinstance(answer, Refusal) and answer.errno == errno.EIO for answer in answers] == [
        True,
        True,
        True,
        False,
    ]


def test_settings_of_no_time_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite://{tmp_path_factory.mktemp('volume')}/volume.db"
    with Volume.format(url) as volume:
        settings = {"name": "x", "uuid": "y", "made_ns": 10**30}
        volume.engine.txn(None, {keys.VOLUME: json.dumps(settings).encode(), keys.INODES: pack_count(1)})
    with pytest.raises(CorruptError, match="settings"):
        Volume.open(url)


# -- removing whole directories


def test_removing_through_a_symbolic_link_leaves_its_target_alone(place: Place) -> None:
    tree = place.tree()
    tree.makedirs("/kept/inside")
    tree.create("/kept/file")
    tree.symlink("kept", "/link")
    for path in ("/link", "/link/"):
        with pytest.raises(MetaError) as caught:
            tree.remove_tree(path)
        assert caught.value.errno == errno.ENOTDIR
    assert tree.listdir("/kept") == [b"file", b"inside"]
    tree.mkdir("/d")
    tree.symlink("../kept", "/d/link")
    assert tree.remove_tree("/d/") == 2
    assert tree.listdir("/kept") == [b"file", b"inside"]


@pytest.mark.parametrize(
    ("path", "number"), [("/", errno.EBUSY), ("//", errno.EBUSY), ("/a/..", errno.EINVAL), ("/a/.", errno.EINVAL)]
)
def test_removing_what_cannot_go_leaves_everything(place: Place, path: str, number: int) -> None:
    tree = place.tree()
    tree.makedirs("/a/b")
    with pytest.raises(MetaError) as caught:
        tree.remove_tree(path)
    assert caught.value.errno == number
    assert tree.listdir("/a") == [b"b"]


def test_a_tree_deeper_than_a_path_may_be_long_can_be_removed(place: Place) -> None:
    tree = place.tree()
    for _ in range(3):
        tree.mkdir("/top")
        tree.makedirs("/top/" + "/".join(["n" * 200] * 15))
        if tree.exists("/deep"):
            tree.rename("/deep", "/top/" + "/".join(["n" * 200] * 15) + "/deep")
        tree.rename("/top", "/deep")
    assert tree.remove_tree("/deep") == 3 * 16
    assert tree.listdir("/") == []


def test_what_others_removed_meanwhile_does_not_stop_a_removal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, submit = place.tree(), place.volume.submit
    tree.mkdir("/d")
    for name in "abc":
        tree.create(f"/d/{name}")

    def late(batch: list[Call]) -> object:
        if len(batch) > 1:
            monkeypatch.undo()
            tree.unlink("/d/b")
        return submit(batch)

    monkeypatch.setattr(place.volume, "submit", late)
    assert tree.remove_tree("/d") == 3


def test_a_directory_within_itself_does_not_hold_a_removal_for_ever() -> None:
    tree = Tree(Volume.format("memory://"))
    tree.makedirs("/a/b")
    a = tree.stat("/a").ino
    tree.volume.engine.txn(None, {keys.entry_key(a, b"b"): pack_entry(a, 4)})
    with pytest.raises(MetaError, match="two names") as caught:
        tree.remove_tree("/a")
    assert caught.value.errno == errno.EIO


def test_settings_that_are_no_text_are_refused() -> None:
    volume = Volume.format("memory://")
    volume.engine.txn(None, {keys.VOLUME: b'{"name":"\xad","uuid":"y","made_ns":1}'})
    with pytest.raises(CorruptError, match="settings"):
        Volume(volume.engine)


def test_a_damaged_row_on_the_way_is_an_input_output_error() -> None:
    tree = Tree(Volume.format("memory://"))
    tree.volume.engine.txn(None, {keys.attr_key(tree.mkdir("/a").ino): b"short"})
    with pytest.raises(MetaError, match="not readable") as caught:
        tree.stat("/a/b")
    assert caught.value.errno == errno.EIO
