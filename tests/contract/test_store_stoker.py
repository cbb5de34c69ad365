"""`stoker://` keeps the contract of stores, in memory and over an SQLite volume with a folder of slices."""

from pathlib import Path

import pytest

from stoker.core.errors import NotFoundError, UsageError
from stoker.fs.client import Client, FileTree
from stoker.fs.client.objects import VolumeStore
from stoker.fs.client.places import Place
from stoker.fs.meta import Volume
from stoker.fs.store.memory import MemorySliceStore
from stoker.storage.api import Store
from stoker.storage.opening import open_store
from stoker.storage.url import parse_url
from stoker.testing.store_contract import StoreContract


class TestVolumeStore(StoreContract):
    """Looks around through another client of the same volume, at the folder above the store's root."""

    def make_store(self, folder: Path) -> Store:
        volume, slices = Volume.format("memory://"), MemorySliceStore()
        place = Place(volume, slices, Client(volume, slices), (0, "memory://", ""))
        made = VolumeStore(place, parse_url("stoker:///volume.db!/some/folder"), "/some/folder")
        made.tree.makedirs("/some/folder")
        return made

    def tree(self, store: Store) -> tuple[Client, FileTree]:
        assert isinstance(store, VolumeStore)
        place: Place = store._place
        client = Client(place.volume, place.store)
        return client, FileTree(client)

    def poke(self, store: Store, key: str, data: bytes) -> None:
        client, tree = self.tree(store)
        with client:
            tree.makedirs(f"/some/folder/{key}".rpartition("/")[0])
            tree.write_bytes(f"/some/folder/{key}", data)

    def peek(self, store: Store, key: str) -> bytes:
        client, tree = self.tree(store)
        with client:
            return bytes(tree.read_bytes(f"/some/folder/{key}"))

    def raw_keys(self, store: Store) -> set[str]:
        client, tree = self.tree(store)
        with client:
            found = [folder + b"/" + name for folder, _, files in tree.walk("/some/folder") for name in files]
        return {path.decode().removeprefix("/some/folder/") for path in found}


@pytest.mark.slow
class TestVolumeStoreOnDisk(TestVolumeStore):
    """The same over SQLite and a folder of slices, by its URL."""

    def make_store(self, folder: Path) -> Store:
        path = folder / "volume.db"
        if not path.exists():
            Volume.format(f"sqlite://{path}?sync=off").close()
        return open_store(f"stoker://{path}!/some/folder?sync=off&retry_attempts=1", create=True)

    def test_a_second_store_of_the_volume_shares_its_client(self, store: Store, tmp_path: Path) -> None:
        store.put("a/object", b"x")
        other = open_store(f"stoker://{tmp_path}/volume.db!/some/folder/a?sync=off&retry_attempts=1")
        assert [info.key for info in other.list()] == ["object"]
        other.close()
        assert bytes(store.get_range("a/object")) == b"x"


def test_a_url_that_names_no_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="three slashes"):
        open_store("stoker://host/volume.db")
    with pytest.raises(UsageError):
        open_store(f"stoker://{tmp_path}/none.db!/")
    Volume.format(f"sqlite://{tmp_path}/v.db").close()
    with pytest.raises(NotFoundError, match="folder"):
        open_store(f"stoker://{tmp_path}/v.db!/none")
    with pytest.raises(UsageError, match="no_such"):
        open_store(f"stoker://{tmp_path}/v.db!/?no_such=1")


def test_blocks_are_kept_in_a_folder_over_restarts(tmp_path: Path) -> None:
    Volume.format(f"sqlite://{tmp_path}/v.db").close()
    url = f"stoker://{tmp_path}/v.db?cache_folder={tmp_path}/cache&cache_bytes=1MiB&retry_attempts=1"
    facts = []
    for turn in range(3):
        store = open_store(url)
        assert isinstance(store, VolumeStore)
        if turn == 0:
            store.put("object", b"x" * 300_000)
        assert bytes(store.get_range("object")) == b"x" * 300_000
        facts.append(store._place.client.counters())
        store.close()
    assert [(one["disk_hits"], one["fetched_bytes"]) for one in facts] == [(0, 300_000), (2, 0), (2, 0)]
