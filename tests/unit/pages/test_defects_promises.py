"""What the system that pages come after promised and tested, asked of pages."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from stoker.pages import ChecksumError, EdgeKind, EventKind, FormatError, Store
from stoker.pages.delta import Delta
from stoker.pages.history import State, frames_between, read_checkpoint, replay, write_state
from stoker.pages.history.replay import replay_where


def test_ids_of_many_threads_are_one_to_n_and_nothing_is_left_behind() -> None:
    threads_count, each = 4 * (os.cpu_count() or 1), 50
    with Store.open(size_bytes=8 << 20) as store:
        made: list[list[int]] = [[] for _ in range(threads_count)]

        def work(mine: list[int]) -> None:
            mine.extend(store.allocate(64).id for _ in range(each))

        threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = [page for mine in made for page in mine]
        assert sorted(ids) == list(range(1, threads_count * each + 1))
        store.free_many(ids)
        assert store.pages() == []
        assert store.stats().page_bytes == 0


def test_ten_thousand_deltas_replay_to_the_same_bytes_twice(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", durability="none", size_bytes=4 << 20, log_bytes=1 << 18) as store:
        pages = [store.allocate(256) for _ in range(8)]
        chance = np.random.default_rng(3)
        for index in range(10_000):
            pages[index % 8].write_at(
                int(chance.integers(0, 248)), int(chance.integers(1, 1 << 62)).to_bytes(8, "little")
            )
        live = store.journal.state()
        once, twice = store.replay(), store.replay()
        assert once.digest() == twice.digest() == live.digest()
        assert [image.epoch for image in once.pages.values()] == [page.epoch for page in pages]
        assert store.lsn == once.lsn, "and nothing was written by it"
        once.pages[pages[0].id].data[:] = 0
        assert store.journal.state().digest() == live.digest(), "a past state shares nothing with the store"


def test_a_past_state_can_be_written_and_read_again(tmp_path: Path) -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(64, name="a")
        page.write(b"1" * 64)
        store.mark("one")
        page.write(b"2" * 64)
        past = store.replay(mark="one")
    again = read_checkpoint(write_state(tmp_path, past, bytes(16)).path)
    assert again.digest() == past.digest()
    assert again.marks == {"one": past.lsn}


def test_a_difference_turns_one_state_into_the_other() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        pages = [store.allocate(64) for _ in range(3)]
        before = store.journal.state()
        pages[0].write(b"x" * 64)
        pages[1].resize(100)
        pages[2].free()
        store.allocate(8, name="new").write(b"12345678")
        after = store.journal.state()
    turned = replay(before.copy(), frames_between(before, after))
    assert {page: bytes(image.data) for page, image in turned.pages.items()} == {
        page: bytes(image.data) for page, image in after.pages.items()
    }


def test_states_that_match_are_caught_while_replaying() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(8)
        for index in range(1, 6):
            page.write(index.to_bytes(8, "little"))
        frames = list(store.journal.scan())
    found = list(replay_where(State(), frames, lambda state: state.pages[page.id].epoch % 2 == 0))
    assert [state.pages[page.id].epoch for state in found] == [0, 2, 4]


def test_a_version_of_a_page_is_kept_for_every_commit() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(8)
        for index in range(1, 6):
            page.write(index.to_bytes(8, "little"), source=f"writer-{index}")
        versions = store.history(page, with_data=True)
    assert [one.source for one in versions] == ["", *(f"writer-{index}" for index in range(1, 6))]
    assert [int(one.data[0]) for one in versions if one.data is not None] == list(range(6))


def test_sparse_deltas_are_five_times_smaller_than_their_pages() -> None:
    old = np.random.default_rng(1).integers(0, 256, 4096, np.uint8)
    new = old.copy()
    new[np.random.default_rng(2).choice(4096, 40, replace=False)] ^= 0xFF
    delta = Delta.diff(old, new, page=1, epoch=1)
    assert len(delta.to_bytes()) * 5 < 4096
    assert delta.changed_bytes == 40


def test_laws_of_deltas() -> None:
    chance = np.random.default_rng(5)
    first, second, third = (chance.integers(0, 4, 500, np.uint8) for _ in range(3))
    one = Delta.diff(first, second, page=1, epoch=1)
    two = Delta.diff(second, third, page=1, epoch=2)
    both = first.copy()
    one.compose(two).apply(both)
    assert (both == third).all()
    again = first.copy()
    one.apply(again)
    one.apply(again)
    assert (again == second).all()
    assert Delta.diff(first, first, page=1, epoch=1).is_empty
    assert (one.compose(two).mask() == (one.mask() | two.mask())).all()


def test_damage_to_a_checkpoint_is_found_wherever_it_is(tmp_path: Path) -> None:
    with Store.open(size_bytes=1 << 20) as store:
        store.allocate(200).write(np.random.default_rng(1).integers(0, 256, 200, np.uint8))
        path = store.checkpoint(tmp_path, codec="raw").path
    whole = path.read_bytes()
    for offset in [*range(0, 64, 7), 4095, *range(4096, 4296, 13), *range(len(whole) - 128, len(whole), 11)]:
        data = bytearray(whole)
        data[offset] ^= 0x10
        path.write_bytes(bytes(data))
        with pytest.raises((ChecksumError, FormatError), match="checkpoint"):
            read_checkpoint(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(FormatError, match="checkpoint has no end"):
        read_checkpoint(path)


def test_edges_of_every_kind_and_orders_of_the_graph() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        a, b, c, d = (store.allocate(8).id for _ in range(4))
        for parent, child, kind in [
            (a, b, EdgeKind.DATA),
            (a, c, EdgeKind.CONTROL),
            (b, d, EdgeKind.DEVICE),
            (c, d, EdgeKind.ARTEFACT),
        ]:
            store.link(parent, child, kind)
        graph = store.graph.graph
        assert graph.order() == [a, b, c, d]
        assert graph.descendants(a) == {b, c, d}
        assert graph.ancestors(d) == {a, b, c}
        assert graph.has(a, b, EdgeKind.DATA)
        assert not graph.has(a, b, EdgeKind.CONTROL)
        assert store.graph.unlink(a, b)
        assert graph.children(a) == [c]


def test_events_of_a_change_come_in_their_order() -> None:
    kinds: list[int] = []
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(8)
        handle = store.subscribe(None, lambda event: kinds.append(event.kind))
        page.write(b"12345678")
        assert kinds == [EventKind.PAGE_INVALIDATED, EventKind.DELTA_APPLIED, EventKind.PAGE_CHANGED]
        assert store.graph.events.unsubscribe(handle)
        page.write(b"87654321")
        assert len(kinds) == 3


def test_a_recompute_that_is_not_pure_is_found() -> None:
    calls = []
    with Store.open(size_bytes=1 << 20) as store:
        source, good, bad = (store.allocate(8) for _ in range(3))
        store.derive("passthrough", [source], good)

        def counting(inputs: list, out: np.ndarray) -> bytes:
            calls.append(1)
            return len(calls).to_bytes(8, "little")

        store.derive(counting, [source], bad, name="counting")
        assert store.graph.check_purity(good)
        assert not store.graph.check_purity(bad)


def test_a_write_of_the_same_bytes_makes_no_delta_and_no_epoch() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        page = store.allocate(64)
        page.write(b"x" * 64)
        before, unchanged = (store.lsn, page.epoch), store.counters()["unchanged"]
        page.write(b"x" * 64)
        page.write_at(5, b"xxx")
        assert (store.lsn, page.epoch) == before
        assert store.stats().counters["unchanged"] == unchanged + 2
