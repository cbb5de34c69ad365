"""A store in one process: pages, commits, snapshots."""

import gc
import weakref

import numpy as np
import pytest

from stoker import pages
from stoker.pages.arena import locks
from stoker.pages.arena.audit import audit
from stoker.pages.errors import Conflict, InvalidDelta, OutOfSpace, PageNotFound, PagesError
from stoker.pages.store import Store


def small(**sizes: int) -> Store:
    return Store.open(**{"size_bytes": 1 << 20, "pages_max": 256, "log_bytes": 1 << 16, **sizes})


def test_a_page_is_zero_then_what_was_written() -> None:
    with small() as store:
        page = store.allocate(100, name="first")
        assert page.id == 1
        assert not page.read().any()
        lsn = page.write(bytes(range(100)))
        assert bytes(page.read()) == bytes(range(100))
        assert (page.epoch, page.lsn, store.lsn) == (1, lsn, lsn)


def test_writing_what_is_there_makes_no_commit() -> None:
    with small() as store:
        page = store.allocate(100)
        before = page.write(b"x" * 100)
        assert page.write(b"x" * 100) == before
        assert page.write_at(7, b"xxx") == before
        assert page.epoch == 1


def test_arrays_with_gaps_are_written_as_what_they_show() -> None:
    with small() as store:
        page = store.allocate(40)
        gaps = np.arange(80, dtype=np.uint8)[::2]
        page.write(gaps)
        assert bytes(page.read()) == gaps.tobytes()
        page.write_at(10, gaps[:5][::-1])
        assert bytes(page.read()) == gaps[:10].tobytes() + gaps[:5][::-1].tobytes() + gaps[15:].tobytes()


def test_an_unexpected_epoch_is_a_conflict() -> None:
    with small() as store:
        page = store.allocate(8)
        page.write(b"12345678", expect_epoch=0)
        with pytest.raises(Conflict, match="expected epoch 0, got 1"):
            page.write(b"abcdefgh", expect_epoch=0)
        assert bytes(page.read()) == b"12345678"


def test_a_source_whose_first_write_was_refused_is_named_by_the_next() -> None:
    with pages.Store.open(size_bytes=1 << 20, pages_max=16) as store:
        page = store.allocate(8)
        page.write(b"first...")
        with pytest.raises(Conflict):
            page.write(b"refused.", expect_epoch=0, source="worker")
        page.write(b"second..", source="worker")
        page.write(b"third...", source="worker")
        assert store.journal.stats().by_source["worker"] == 3, "its name, and two writes"


def test_a_batch_that_raises_leaves_nothing() -> None:
    with small() as store:
        page = store.allocate(8)
        with pytest.raises(ZeroDivisionError), store.batch() as batch:
            batch.write(page, b"12345678")
            batch.allocate(100)
            _ = 1 // 0
        assert not page.read().any()
        assert [found.id for found in store.pages()] == [page.id]
        assert store.allocate(100).id == 2


def test_a_batch_sees_its_own_writes_and_makes_one_epoch() -> None:
    with small() as store:
        page = store.allocate(8)
        with store.batch() as batch:
            batch.write(page, b"12345678")
            batch.write_at(page, 2, b"zz")
            assert bytes(batch.read(page)) == b"12zz5678"
        assert bytes(page.read()) == b"12zz5678"
        assert page.epoch == 1


def test_a_snapshot_keeps_what_it_saw() -> None:
    with small() as store:
        page, gone = store.allocate(64), store.allocate(64)
        page.write(b"a" * 64)
        gone.write(b"g" * 64)
        with store.snapshot() as snapshot:
            view = snapshot.view(page.id)
            for letter in b"bcd":
                page.write(bytes([letter]) * 64)
            gone.free()
            later = store.allocate(64)
            assert bytes(view) == b"a" * 64
            assert bytes(snapshot.view(gone.id)) == b"g" * 64
            assert later.id not in snapshot
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1
        assert bytes(page.read()) == b"d" * 64


def test_a_freed_page_is_not_found_and_its_id_never_comes_back() -> None:
    with small() as store:
        page = store.allocate(64)
        page.free()
        with pytest.raises(PageNotFound):
            page.read()
        assert store.allocate(64).id != page.id
        with pytest.raises(PageNotFound):
            page.read()


def test_space_that_snapshots_held_comes_back() -> None:
    with small(log_bytes=1 << 20) as store:
        page = store.allocate(256 << 10)
        for round_ in range(20):
            with store.snapshot():
                page.write(np.full(256 << 10, round_ + 1, np.uint8))


def test_a_full_arena_refuses_and_stays_sound() -> None:
    with small() as store:
        pages = []
        with pytest.raises(OutOfSpace, match="arena"):
            while True:
                pages.append(store.allocate(100_000))
        pages.pop().free()
        store.allocate(100_000)


def test_a_commit_too_large_for_the_ring_is_refused() -> None:
    with small() as store:
        page = store.allocate(64 << 10)
        with pytest.raises(OutOfSpace, match="log_bytes"):
            page.write(np.arange(64 << 10).astype(np.uint8) + np.uint8(1))
        assert page.epoch == 0


def test_a_commit_of_nearly_half_the_ring_fits_wherever_the_ring_stands() -> None:
    with small(size_bytes=4 << 20, log_bytes=256 << 10) as store:
        page, filler = store.allocate(100_000), store.allocate(3000)
        for number in range(1, 120):
            page.write(np.full(100_000, number, np.uint8))
            filler.write(np.full(3000, number, np.uint8))
            assert int(page.read()[-1]) == number
        assert not audit(store.arena)


def test_short_ways_end_where_listeners_subclasses_and_closing_begin() -> None:
    class Counting(Store):
        calls = 0

        def write(self, *arguments: object, **named: object) -> int:
            self.calls += 1
            return super().write(*arguments, **named)  # type: ignore[arg-type]

    with Counting.open(size_bytes=1 << 20) as store:
        store.allocate(8).write(b"12345678")
        assert store.calls == 1
    with small() as store:
        page, heard = store.allocate(8), []
        store.write(page.id, b"12345678")
        store.listeners.append(lambda lsn, pages: heard.append((lsn, list(pages))))
        lsn = store.write(page.id, b"abcdefgh")
        assert heard == [(lsn, [page.id])]
        store.listeners.clear()
        store.free_id(store.allocate_id(100))
        assert len(heard) == 1
        write = store.write
    with pytest.raises(PagesError, match="closed"):
        write(page.id, b"12345678")


def test_a_forgotten_store_is_collected_though_a_listener_holds_it() -> None:
    store = small()
    store.allocate(8).write(b"12345678")
    store.listeners.append(lambda lsn, pages, held=store: None)
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


def test_resize_keeps_what_fits_and_clone_copies() -> None:
    with small() as store:
        page = store.allocate(8, name="a")
        page.write(b"12345678")
        page.resize(12)
        assert bytes(page.read()) == b"12345678\0\0\0\0"
        copy = page.clone(name="b")
        page.resize(3)
        assert bytes(page.read()) == b"123"
        assert bytes(copy.read()) == b"12345678\0\0\0\0"
        assert (page.name, copy.name, store.page("b").id) == ("a", "b", copy.id)


def test_a_write_of_another_size_is_refused() -> None:
    with small() as store:
        page = store.allocate(8)
        with pytest.raises(InvalidDelta, match="expected 8 bytes"):
            page.write(b"123456789")
        with pytest.raises(InvalidDelta, match="leaves the page"):
            page.write_at(7, b"12")


def test_typed_pages_give_arrays() -> None:
    with small() as store:
        page = store.allocate(dtype=np.float32, shape=(3, 4))
        page.write(np.arange(12, dtype=np.float32))
        assert page.array().shape == (3, 4)
        assert float(page.array()[2, 3]) == 11.0


def test_an_edit_commits_what_changed() -> None:
    with small() as store:
        page = store.allocate(16)
        with page.edit(np.uint32) as words:
            words[2] = 7
        assert page.read().view(np.uint32).tolist() == [0, 0, 7, 0]
        with pytest.raises(Conflict), page.edit() as array:
            array[0] = 1
            page.write_at(5, b"x")


def test_robust_locks_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks.probe_robust_locks() == ""
    monkeypatch.setattr(locks, "_ROBUST", 0)  # a plain mutex: its dead owner has it for ever
    assert "never free again" in locks.probe_robust_locks()
