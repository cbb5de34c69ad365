"""The short way of `stabilize`: it gives way to everything rare, and a dead owner of the lock is mended on it too."""

import gc
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from stoker.core.errors import UsageError
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


def put(store: Store, page: int, number: int) -> None:
    store.write(page, np.full(64, number, np.uint8))


def test_functions_are_called_as_often_as_wanted_with_what_was_told() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, first, second, third = (store.allocate(64).id for _ in range(4))
        told: list[tuple[int, int, int]] = []

        def scaled(inputs: list[Input], out: np.ndarray, *, by: int, plus: int = 0) -> np.ndarray | bytes:
            told.append((int(inputs[0].data[0]), by, plus))
            made = inputs[0].data * np.uint8(by) + np.uint8(plus)
            return made if plus else made.tobytes()

        store.derive(scaled, [source], first, name="scaled", by=2)
        store.derive("scaled", [first], second, by=3, plus=1)
        store.derive(copied, [second], third)
        for turn in range(1, 6):
            put(store, source, turn)
            assert store.stabilize().recomputed == [first, second, third]
            assert set(store.read(third).tolist()) == {6 * turn + 1}
        assert told == [one for turn in range(1, 6) for one in ((turn, 2, 0), (2 * turn, 3, 1))]
        put(store, source, 5)
        assert store.stabilize().recomputed == []


def test_a_function_that_fails_is_told_and_others_go_on() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, bad, below, good = (store.allocate(64).id for _ in range(4))
        sizes = [64]

        def moody(inputs: list[Input], out: np.ndarray) -> bytes:
            if inputs[0].data[0] == 3:
                raise ValueError("not three")
            return bytes([int(inputs[0].data[0])]) * sizes[0]

        store.derive(moody, [source], bad)
        store.derive("passthrough", [bad], below)
        store.derive(copied, [source], good)
        for turn in (1, 2):
            put(store, source, turn)
            assert store.stabilize().recomputed == [bad, good, below]
        put(store, source, 3)
        report = store.stabilize()
        assert (report.failed, report.stale, report.recomputed) == ([bad], [below], [good])
        with pytest.raises(DeriveError, match="not three") as caught:
            store.graph.require(bad)
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.__cause__.__traceback__ is not None
        put(store, source, 4)
        assert store.stabilize().recomputed == [bad, good, below]
        store.graph.require(bad)
        sizes[0] = 63
        put(store, source, 5)
        assert store.stabilize().failed == [bad]
        with pytest.raises(DeriveError, match="another size"):
            store.graph.require(bad)


def test_what_ends_the_program_leaves_a_graph_that_goes_on() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, made = (store.allocate(64).id for _ in range(2))

        def stopped(inputs: list[Input], out: np.ndarray) -> None:
            if inputs[0].data[0] == 2:
                raise KeyboardInterrupt
            out[:] = inputs[0].data

        store.derive(stopped, [source], made)
        put(store, source, 1)
        store.stabilize()
        put(store, source, 2)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                store.stabilize()
            assert not store.graph.running
        put(store, source, 3)
        assert store.stabilize().recomputed == [made]


def test_functions_cannot_change_the_graph_and_may_read_listen_and_forget() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, made = (store.allocate(64).id for _ in range(2))
        heard: list[int] = []
        refused: list[str] = []

        def curious(inputs: list[Input], out: np.ndarray) -> None:
            assert store.graph.running
            for edit in (store.stabilize, store.graph.stabilize, lambda: store.graph.unlink(source, made)):
                with pytest.raises(UsageError, match="wave") as caught:
                    edit()
                refused.append(str(caught.value))
            assert inputs[0].changed in (None, ((0, 64),))
            out[:] = store.read(source)
            if inputs[0].data[0] == 2:
                store.listeners.append(lambda lsn, pages: heard.extend(pages))

        store.derive(curious, [source], made)
        for turn in (1, 2):
            put(store, source, turn)
            assert store.stabilize().recomputed == [made]
        assert heard == [made], "who begins to listen meanwhile hears of the wave"
        assert len(refused) == 6
        assert not store.graph.running


def test_a_writer_in_between_makes_the_function_run_again_on_the_short_way() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        source, made = (store.allocate(64).id for _ in range(2))
        waiting: list[int] = []

        def slow(inputs: list[Input], out: np.ndarray) -> None:
            if waiting:
                writer = threading.Thread(target=put, args=(store, source, waiting.pop()))
                writer.start()
                writer.join()
            out[:] = inputs[0].data

        store.derive(slow, [source], made)
        put(store, source, 1)
        store.stabilize()
        waiting.extend((20, 10))
        put(store, source, 2)
        assert store.stabilize().recomputed == [made]
        assert store.read(made)[0] == 20
        assert store.stale() == []


def test_threads_share_one_graph_of_functions() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        sources = [store.allocate(64).id for _ in range(4)]
        ends = [store.allocate(64).id for _ in range(4)]
        for source, end in zip(sources, ends, strict=True):
            store.derive(copied, [source], end)
        store.stabilize()

        def work(source: int) -> None:
            for turn in range(150):
                put(store, source, turn)
                store.stabilize()

        threads = [threading.Thread(target=work, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.stabilize()
        assert [int(store.read(end)[0]) for end in ends] == [149] * 4


def test_a_graph_whose_functions_hold_the_store_is_collected() -> None:
    store = Store.open(size_bytes=1 << 20)
    source, made = (store.allocate(64).id for _ in range(2))

    def holding(holder: Store) -> Callable[[list[Input], np.ndarray], None]:
        def function(inputs: list[Input], out: np.ndarray) -> None:
            out[:] = holder.read(source)

        return function

    store.derive(holding(store), [source], made)
    for turn in (1, 2):
        put(store, source, turn)
        store.stabilize()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
