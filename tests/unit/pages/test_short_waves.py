"""The short way of `stabilize`: it gives way to everything rare, and a dead owner of the lock is mended on it too."""

import gc
import os
import weakref

import numpy as np
import pytest

from stoker.kernels.native import native_kernels
from stoker.pages import Store
from stoker.pages.errors import DeriveError
from stoker.pages.graph import Input

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="the native kernels are not installed")


def copied(inputs: list[Input], out: np.ndarray) -> None:
    """Copy the first input."""
    out[:] = inputs[0].data


def test_a_lock_whose_owner_died_is_mended_by_the_next_wave() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, derived = (store.allocate(64).id for _ in range(2))
        store.derive("passthrough", [source], derived)
        store.stabilize()
        store.write(source, bytes([7]) * 64)
        child = os.fork()
        if not child:
            store.arena.lock.acquire()
            os._exit(0)
        os.waitpid(child, 0)
        assert store.stabilize().recomputed == [derived]
        assert bytes(store.read(derived)) == bytes([7]) * 64
        assert store.counters()["recoveries"] == 1


def test_it_gives_way_to_functions_listeners_and_errors() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, derived, called = (store.allocate(64).id for _ in range(3))
        store.derive("passthrough", [source], derived)
        store.stabilize()
        heard: list[int] = []
        listen = lambda lsn, pages: heard.extend(pages)  # noqa: E731
        store.listeners.append(listen)
        store.write(source, bytes([1]) * 64)
        assert store.stabilize().recomputed == [derived]
        assert heard == [source, derived]
        store.listeners.remove(listen)
        store.graph.derive(copied, [derived], called)
        store.write(source, bytes([2]) * 64)
        assert store.stabilize().recomputed == [derived, called]
        assert bytes(store.read(called)) == bytes([2]) * 64
        fail = store.allocate(64).id

        def failing(inputs: list[Input], out: np.ndarray) -> None:
            raise ValueError("not today")

        store.graph.derive(failing, [source], fail)
        assert store.stabilize().failed == [fail]
        with pytest.raises(DeriveError, match="not today"):
            store.graph.require(fail)
        assert store.stabilize().failed == [fail], "it is tried again"


def test_a_store_that_nobody_holds_is_collected_with_its_graph() -> None:
    store = Store.open(size_bytes=1 << 20)
    source, derived = (store.allocate(64).id for _ in range(2))
    store.derive("passthrough", [source], derived)
    short = store.stabilize
    short()
    graph = weakref.ref(store.graph)
    store.close()
    del store
    gc.collect()
    assert graph() is None
    with pytest.raises(TypeError, match="gone"):
        short()
