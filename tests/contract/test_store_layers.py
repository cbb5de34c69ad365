"""Every layer keeps the contract of the store it wraps, and offers what that store offers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from test_store_file import FolderContract
from test_store_memory import TestMemoryStore as MemoryContract

from stoker.storage.api import Store, SupportsCache, SupportsLocalPath, SupportsMultipart, SupportsRename
from stoker.storage.layers.faulty import Faults, FaultyStore
from stoker.storage.layers.layer import Layer
from stoker.storage.layers.limits import LimitedStore
from stoker.storage.layers.prefix import PrefixStore
from stoker.storage.layers.recording import RecordingStore
from stoker.storage.layers.retry import RetryPolicy, RetryStore


class PlainLayer(Layer):
    """Adds nothing."""


LAYERS: dict[str, Callable[[Store], Store]] = {
    "plain": PlainLayer,
    "recording": RecordingStore,
    "retry": lambda inner: RetryStore(inner, RetryPolicy()),
    "limits": lambda inner: LimitedStore(inner, 3, 1e9),
    "faulty": lambda inner: FaultyStore(inner, Faults(open_delay_seconds=1e-6, read_delay_seconds=1e-6)),
    "retried_faults": lambda inner: RetryStore(FaultyStore(inner, Faults(fail_ratio=0.05, seed=4)), RetryPolicy(12)),
    "all": lambda inner: RecordingStore(RetryStore(LimitedStore(FaultyStore(inner, Faults()), 3, None), RetryPolicy())),
}
"""Layers by name; faults are injected only below the layer that repeats."""


@pytest.fixture(params=sorted(LAYERS))
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def skip_a_broken_read_of_a_changing_object(layer: str, request: pytest.FixtureRequest) -> None:
    """A read that broke and finds another version is an error, rightly: see the unit tests of the layer."""
    if layer == "retried_faults" and "old_object_or_the_new" in request.node.name:
        pytest.skip("a read that breaks off while the object is replaced is an error")


class TestLayerOverFile(FolderContract):
    @pytest.fixture(autouse=True)
    def _layer(self, layer: str, request: pytest.FixtureRequest) -> None:
        self.layer = layer
        skip_a_broken_read_of_a_changing_object(layer, request)

    def url(self, root: Path) -> str:
        return f"file://{root}?fsync=none"

    def make_store(self, folder: Path) -> Store:
        return LAYERS[self.layer](super().make_store(folder))


class TestLayerOverMemory(MemoryContract):
    @pytest.fixture(autouse=True)
    def _layer(self, layer: str, request: pytest.FixtureRequest) -> None:
        self.layer = layer
        skip_a_broken_read_of_a_changing_object(layer, request)

    def make_store(self, folder: Path) -> Store:
        return LAYERS[self.layer](super().make_store(folder))

    def test_it_offers_only_what_memory_can(self, store: Store) -> None:
        assert isinstance(store, SupportsMultipart)
        assert isinstance(store, SupportsRename)
        assert not isinstance(store, SupportsCache)
        assert not isinstance(store, SupportsLocalPath)

    @pytest.mark.skip(reason="looks at the class of the backend")
    def test_another_name_is_another_store(self, store: Store) -> None:
        """The backend's own test."""


class TestPrefixOverFile(FolderContract):
    """The prefix layer, looked at from outside."""

    def url(self, root: Path) -> str:
        return f"file://{root}?fsync=none"

    def make_store(self, folder: Path) -> Store:
        store = PrefixStore(super().make_store(folder), "some/prefix")
        self.folder = self.folder / "some/prefix"
        return store
