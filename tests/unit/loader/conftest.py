"""A store of one's own, and the proof that every loader ended its threads."""

import threading
from collections.abc import Iterator

import pytest

from stoker.core.seed import run_id
from stoker.storage.api import Store
from stoker.storage.opening import open_store


@pytest.fixture
def memory() -> Iterator[Store]:
    """A memory store of its own, emptied afterwards."""
    store = open_store(f"mem://{run_id()}")
    yield store
    for info in list(store.list()):
        store.delete(info.key)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test must end its loaders' threads."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("stoker-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name
