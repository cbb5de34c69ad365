"""Readers that die over a snapshot, and writers that are stopped in the middle of a commit."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from kill_harness import in_child, was_killed

from stoker.core.clock import sleep
from stoker.pages import OutOfSpace, Store, Timeout
from stoker.pages.arena import arena as arena_module
from stoker.pages.arena import redo as redo_module
from stoker.pages.arena import steps
from stoker.pages.arena.audit import audit
from stoker.pages.arena.layout import Word

SMALL = {"size_bytes": 1 << 20, "pages_max": 64, "log_bytes": 64 << 10}
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def die_with_snapshots(store: Store, count: int) -> None:
    def work(tell: Callable[[], None]) -> None:
        other = Store.attach(store.descriptor)
        held = [other.snapshot() for _ in range(count)]
        assert len(held) == count
        os.kill(os.getpid(), signal.SIGKILL)

    assert was_killed(in_child(work)[0])


def test_what_a_dead_reader_held_comes_back() -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(4096)
        die_with_snapshots(store, 3)
        page.write(np.full(4096, 1, np.uint8))
        assert store.stats().retired_extents == 1
        assert store.arena.sweep() == 4  # three snapshots and the process itself
        assert store.stats().retired_extents == 0
        assert store.stats().snapshots_oldest_lsn == 0
        assert not audit(store.arena)


def test_a_full_store_frees_what_the_dead_hold_before_it_refuses() -> None:
    with Store.open(**SMALL) as store:
        pages = [store.allocate(16 << 10) for _ in range(20)]
        die_with_snapshots(store, 1)
        for round_ in range(8):  # each round needs 320 KiB that the dead reader's snapshot would hold
            for page in pages:
                page.write(np.full(16 << 10, round_ + 1, np.uint8))
        assert not audit(store.arena)


def test_a_living_reader_is_not_swept() -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(400 << 10)
        with store.snapshot() as snapshot:
            before = bytes(snapshot.view(page.id))
            with pytest.raises(OutOfSpace):
                for round_ in range(4):
                    page.write_at(0, bytes([round_ + 1]) * 1000)
                    store.resize(page, (400 << 10) - 1 - round_)
            assert bytes(snapshot.view(page.id)) == before


def test_states_and_metadata_leave_the_bytes_of_snapshots_alone() -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(64, name="a")
        page.write(b"before".ljust(64))
        with store.snapshot() as snapshot:
            page.set_meta(colour="blue")
            page.write(b"after!".ljust(64))
            assert bytes(snapshot.view(page.id)).strip() == b"before"


@contextmanager
def stopped_writer(store: Store, page: int, step: int) -> Iterator[int]:
    """Have a child stop by SIGSTOP at a step of a write to the page; yields its pid."""
    child = os.fork()
    if not child:
        try:
            other = Store.attach(store.descriptor)
            other.take_long_ways()
            count = iter(range(1, 1000))

            def stop(name: str) -> None:
                if next(count) == step:
                    os.kill(os.getpid(), signal.SIGSTOP)

            arena_module.step = redo_module.step = stop
            other.write(page, b"new!" * 16)
        finally:
            os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


OLD, NEW = b"old." * 16, b"new!" * 16


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_readers_meet_a_stopped_writer(step: int, end: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get the old or the new bytes, or a Timeout while it is stopped in the very page; afterwards all goes on."""
    monkeypatch.setattr(arena_module, "READ_TIMEOUT_SECONDS", 0.05)
    with Store.open(**SMALL) as store:
        page, other = store.allocate(64), store.allocate(64)
        page.write(OLD)
        with stopped_writer(store, page.id, step) as child:
            assert bytes(other.read()) == bytes(64), "other pages are read all the while"
            changing = bool(store.arena.words[store.arena.table.at(page.id)] & 1)
            if changing:
                with pytest.raises(Timeout, match="does not go on"):
                    page.read()
            else:
                assert bytes(page.read()) in (OLD, NEW)
            os.kill(child, end)
            os.waitpid(child, 0)
        intended = bytes(page.read())
        assert intended in (OLD, NEW)
        assert intended == NEW or end == signal.SIGKILL
        assert not audit(store.arena)
        page.write(b"next" * 16)
        assert not store.verify()


def test_somebody_waiting_for_a_stopped_writer_goes_on_when_it_is_killed() -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(64)
        page.write(OLD)
        with stopped_writer(store, page.id, 5) as child:
            killer = threading.Timer(0.1, os.kill, (child, signal.SIGKILL))
            killer.start()
            page.write(b"mine" * 16)  # waits for the lock
            killer.join()
        assert bytes(page.read()) == b"mine" * 16
        assert not store.verify()


def test_an_interrupted_commit_is_whole_and_gives_nothing_back_that_it_used() -> None:
    """An exception of a signal may come anywhere: the commit is carried out all the same, or nothing is changed."""
    for count in range(1, 60):
        with Store.open(**SMALL) as store:
            store.allocate(64, name="first").write(OLD)
            left = [count]

            def interrupt(name: str, left: list[int] = left) -> None:
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch:
                for module in ("arena", "redo"):
                    patch.setattr(f"stoker.pages.arena.{module}.step", interrupt)
                with suppress(KeyboardInterrupt), store.batch() as batch:
                    batch.allocate(100, name="second")
                    batch.write(store.page("first"), NEW)
                    batch.free(batch.allocate(900))
            assert not audit(store.arena)
            assert not store.verify()
            assert (bytes(store.page("first").read()) == NEW) == (len(store.pages()) == 2)
            if left[0] > 0:
                return
    raise AssertionError("the steps never came to an end")


def test_mending_that_breaks_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(**SMALL) as store:
        page = store.allocate(64)

        def work(tell: Callable[[], None]) -> None:
            other = Store.attach(store.descriptor)
            other.take_long_ways()
            steps.kill_at(4, native=0)
            other.write(page.id, NEW)

        assert was_killed(in_child(work)[0])
        assert store.arena.words[Word.INTENT_POS] > store.arena.words[Word.COMMITTED_POS]

        def fail(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(store.arena.redo, "apply_all", fail)
            with pytest.raises(MemoryError):
                store.pages()
        assert bytes(page.read()) == NEW
        assert not store.verify()


def test_the_native_lock_leaves_room_for_signals() -> None:
    """Who waits for a stopped writer hears a signal: the handler runs, and its exception ends the wait."""
    with Store.open(**SMALL) as store:
        page = store.allocate(64)
        page.write(OLD)

        def heard(*_: object) -> None:
            raise InterruptedError("heard")

        before = signal.signal(signal.SIGUSR1, heard)
        try:
            with stopped_writer(store, page.id, 5):
                ring = threading.Thread(target=lambda: (sleep(0.1), os.kill(os.getpid(), signal.SIGUSR1)))
                ring.start()
                with pytest.raises(InterruptedError, match="heard"):
                    page.write(b"mine" * 16)
                ring.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert not store.verify()
