"""Doors to a volume: what opens one, what is refused, and that bytes are stored as the file's class says."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from care_place import CaredFor

from stoker.core.errors import UsageError
from stoker.fs.client import Client, FileTree
from stoker.fs.doors.objects import access_of, masters_url, open_objects, split_path
from stoker.fs.doors.places import Access, open_metadata, opened_place
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import MakeClass, Peek, SetClass
from stoker.fs.meta.storage_class import coded
from stoker.storage.url import parse_url

CODES = {"two": (1, 1), "middle": (4, 2), "cold": (8, 4)}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CaredFor]:
    made = CaredFor(tmp_path, 12)
    for name in ("two", "middle"):
        made.volume.run(MakeClass(coded(name, *CODES[name], cell_bytes=4096)))
    made.live(8)
    yield made
    made.close()


def shards_of(cluster: CaredFor, tree: FileTree, path: str) -> set[tuple[int, int]]:
    """Return k and m of all shards that there are of a file's slices, each seen k + m times."""
    found = tree.stat(path)
    shown = tree.volume.run(Peek(found.ino)).shown
    slices = {one.extent.slice.id for one in shown}
    counted: Counter[tuple[int, int, int]] = Counter()
    for disk in cluster.disks:
        for header in disk.disk.listing(None, 1000).headers:
            if header.shard.slice_id in slices:
                counted[header.shard.slice_id, header.k, header.m] += 1
    assert all(count == k + m for (_, k, m), count in counted.items())
    assert {key[0] for key in counted} == slices
    return {(k, m) for _, k, m in counted}


@pytest.mark.parametrize(("name", "small"), [("two", (1, 1)), ("middle", (1, 2)), ("cold", (1, 4))])
def test_new_slices_have_the_class_of_their_file(cluster: CaredFor, name: str, small: tuple[int, int]) -> None:
    numbers = {one.name: one.id for one in cluster.classes.all()}
    with Client(cluster.volume, cluster.store, threads=False) as client:
        tree = FileTree(client)
        tree.mkdir("/d")
        cluster.volume.run(SetClass(tree.stat("/d").ino, numbers[name]))
        tree.write_bytes("/d/whole", os.urandom(200_000))  # in one step
        with tree.open("/d/open", "wb") as file:  # as a mount does
            file.write(os.urandom(150_000))
        tree.write_bytes("/d/small", b"x" * 1000)
        assert shards_of(cluster, tree, "/d/whole") == {CODES[name]}
        assert shards_of(cluster, tree, "/d/open") == {CODES[name]}
        assert shards_of(cluster, tree, "/d/small") == {small}


def test_a_file_whose_class_changes_has_both(cluster: CaredFor) -> None:
    numbers = {one.name: one.id for one in cluster.classes.all()}
    with Client(cluster.volume, cluster.store, threads=False) as client:
        tree = FileTree(client)
        first, second = os.urandom(100_000), os.urandom(100_000)
        tree.write_bytes("/f", first)
        ino = tree.stat("/f").ino
        client.ask(SetClass(ino, numbers["cold"]))
        with tree.open("/f", "ab") as file:
            file.write(second)
        assert bytes(tree.read_bytes("/f")) == first + second
        assert shards_of(cluster, tree, "/f") == {(1, 0), (8, 4)}


def test_what_means_nothing_to_a_volume_is_refused(tmp_path: Path) -> None:
    Volume.format(f"sqlite://{tmp_path}/v.db").close()
    with pytest.raises(UsageError, match="neither token nor TLS"):
        open_metadata(f"sqlite://{tmp_path}/v.db", Access(token_file="t"))
    with pytest.raises(UsageError, match="in no folder"):
        open_metadata("master://127.0.0.1:1/v", Access(data="/x"))
    with pytest.raises(UsageError, match="authority"):
        Access(tls_cert="c", tls_key="k").tls()
    with pytest.raises(UsageError, match="certificate and its key"):
        Access(tls_ca="a", tls_cert="c").tls()
    with pytest.raises(UsageError, match="token"), opened_place("master://127.0.0.1:1/v", Access(token_file="/no")):
        pass


def test_a_url_of_masters_is_a_store_too() -> None:
    parsed = parse_url("stoker://a:1,b:2/volume!/x/y?token_file=/t&tls_ca=/ca")
    assert masters_url(parsed.host, split_path(parsed.path)[0], "", "full") == "master://a:1,b:2/volume"
    assert access_of(parsed.query) == Access(token_file="/t", tls_ca="/ca")
    with pytest.raises(UsageError, match="decide"):
        open_objects(parse_url("stoker://a:1/volume!/?engine=lmdb"))
    with pytest.raises(UsageError, match="in no folder"):
        open_objects(parse_url("stoker://127.0.0.1:1/volume!/?data=/x"))


def test_there_is_room_where_the_volume_is(tmp_path: Path) -> None:
    Volume.format(f"sqlite://{tmp_path}/v.db").close()
    with opened_place(f"sqlite://{tmp_path}/v.db") as place:
        found = os.statvfs(tmp_path)
        assert 0 < place.free_bytes() <= found.f_blocks * found.f_frsize
