"""`file://` and `direct://` keep the contract; files are written and read around the store with plain Python."""

import errno
import os
from pathlib import Path

import pytest

from stoker.storage.api import Store, SupportsCache, SupportsLocalPath, SupportsMultipart, SupportsRename
from stoker.storage.opening import open_store
from stoker.testing.store_contract import StoreContract


class FolderContract(StoreContract):
    """How to look around a store that keeps its objects in `<folder>/root`."""

    folder: Path

    def url(self, root: Path) -> str:
        raise NotImplementedError

    def make_store(self, folder: Path) -> Store:
        self.folder = folder / "root"
        return open_store(self.url(self.folder), create=True)

    def poke(self, store: Store, key: str, data: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def peek(self, store: Store, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def raw_keys(self, store: Store) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir()}

    def test_it_offers_what_a_folder_can(self, store: Store) -> None:
        for capability in (SupportsMultipart, SupportsRename, SupportsCache, SupportsLocalPath):
            assert isinstance(store, capability)


class TestFileStore(FolderContract):
    def url(self, root: Path) -> str:
        return f"file://{root}"


@pytest.mark.parametrize("fsync", ["data", "none"])
class TestFileStoreWithLessSync(FolderContract):
    @pytest.fixture(autouse=True)
    def _fsync(self, fsync: str) -> None:
        self.fsync = fsync

    def url(self, root: Path) -> str:
        return f"file://{root}?fsync={self.fsync}"

    def test_it_does_not_claim_durability(self, store: Store) -> None:
        assert not store.capabilities.durable


class TestFileStoreOnAnOldKernel(FolderContract):
    """Without openat2(2), folders are opened one by one."""

    @pytest.fixture(autouse=True)
    def _no_openat2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(folder: int, path: bytes, flags: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr("stoker.storage.backends.beneath.open_beneath", refuse)

    def url(self, root: Path) -> str:
        return f"file://{root}"


class TestFileStoreInMemory(FolderContract):
    """A file system in memory has no device: nothing can be evicted, nothing is durable."""

    @pytest.fixture(autouse=True)
    def _memory_folder(self, memory_folder: Path) -> None:
        self.memory_folder = memory_folder

    def make_store(self, folder: Path) -> Store:
        return super().make_store(self.memory_folder)

    def url(self, root: Path) -> str:
        return f"file://{root}"

    def test_it_claims_neither_durability_nor_eviction(self, store: Store) -> None:
        assert not store.capabilities.durable
        assert not store.capabilities.cache_evictable


class TestDirectStore(FolderContract):
    @pytest.fixture(autouse=True)
    def _needs_a_device(self, direct_folder: Path) -> None:
        self.direct_folder = direct_folder

    def url(self, root: Path) -> str:
        return f"direct://{root}"

    def test_it_says_that_it_is_direct(self, store: Store) -> None:
        assert store.capabilities.io_mode == "direct"
        assert store.capabilities.alignment_bytes >= 512
        assert store.capabilities.notes == ()


class TestDirectStoreThatFellBack(TestFileStoreInMemory):
    def url(self, root: Path) -> str:
        return f"direct://{root}?fallback=buffered"

    def test_it_says_so(self, store: Store) -> None:
        assert store.capabilities.io_mode == "buffered"
        assert "fell back to buffered" in store.capabilities.notes[0]
