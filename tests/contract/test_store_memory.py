"""`mem://` and `null://` keep the contract, as far as they keep content."""

import itertools
import os
from pathlib import Path
from typing import Final

import pytest

from stoker.storage.api import Store
from stoker.storage.backends.memory import MemoryStore
from stoker.storage.backends.null import NullStore
from stoker.storage.opening import open_store
from stoker.testing.store_contract import StoreContract

_NUMBERS: Final = itertools.count()


class TestMemoryStore(StoreContract):
    """Looks around through a second store of the same name, opened without the prefix."""

    def make_store(self, folder: Path) -> Store:
        self.name = f"contract-{os.getpid()}-{next(_NUMBERS)}"
        self.around = open_store(f"mem://{self.name}")
        return open_store(f"mem://{self.name}/some/prefix")

    def poke(self, store: Store, key: str, data: bytes) -> None:
        self.around.put(f"some/prefix/{key}", data)

    def peek(self, store: Store, key: str) -> bytes:
        return bytes(self.around.get_range(f"some/prefix/{key}"))

    def raw_keys(self, store: Store) -> set[str]:
        return {info.key.removeprefix("some/prefix/") for info in self.around.list()}

    def test_another_name_is_another_store(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.put("object", b"x")
        assert list(open_store(f"mem://{self.name}-other").list()) == []


class TestNullStore(StoreContract):
    keeps_content = False

    def make_store(self, folder: Path) -> Store:
        return open_store("null://")

    def poke(self, store: Store, key: str, data: bytes) -> None:
        assert isinstance(store, NullStore)
        store._sizes_bytes[key] = len(data)

    def peek(self, store: Store, key: str) -> bytes:
        assert isinstance(store, NullStore)
        return bytes(store._sizes_bytes[key])

    def raw_keys(self, store: Store) -> set[str]:
        assert isinstance(store, NullStore)
        return set(store._sizes_bytes)

    @pytest.mark.skip(reason="two objects without content differ only in size, and so do their versions")
    def test_of_many_conditional_puts_one_wins(self, store: Store) -> None:
        """Who won cannot be seen."""
