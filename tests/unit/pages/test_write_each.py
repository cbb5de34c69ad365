"""`write_each`: a commit of every page and one sync of all; what a crash leaves is the first of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.kernels.native import native_kernels
from stoker.pages import InvalidDelta, PageNotFound, Store
from stoker.pages.arena.steps import kill_at


@pytest.fixture(params=["short", "long"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store that goes the short ways, and one that goes none of them."""
    with Store.open(size_bytes=1 << 20, pages_max=256, log_bytes=1 << 16) as opened:
        if request.param == "long":
            opened.take_long_ways()
        elif native_kernels() is None:
            pytest.skip("native kernels are not installed")
        yield opened


def rows(count: int, value: int, size_bytes: int = 40) -> list[bytes]:
    return [bytes([value + row]) * size_bytes for row in range(count)]


def contents(store: Store, pages: list[int]) -> list[bytes]:
    return [bytes(store.read(page)) for page in pages]


def test_every_page_has_a_commit_of_its_own_in_order(store: Store) -> None:
    pages = store.allocate_many([40] * 5).tolist()
    before = store.lsn
    assert store.write_each(pages, rows(5, 1)) == before + 5 == store.lsn
    assert contents(store, pages) == rows(5, 1)
    frames = list(store.journal.scan(since=before + 1))
    assert [(frame.page, frame.last) for frame in frames] == [(page, True) for page in pages]
    assert store.write_each(pages[:2], rows(2, 1)) == store.lsn == before + 5, "nothing differs"
    assert store.write_each([], []) == store.lsn


def test_rows_are_arrays_buffers_and_whatever_a_page_takes(store: Store) -> None:
    pages = store.allocate_many([40] * 3).tolist()
    image = np.arange(120, dtype=np.uint8).reshape(3, 40)
    gaps = [np.repeat(row, 2)[::2] for row in image]
    for given in (image, image.view(np.uint32), list(image), np.asfortranarray(image), gaps):
        store.write_each(pages, np.zeros((3, 40), np.uint8))
        store.write_each(np.array(pages, np.uint64), given, source="somebody")
        assert contents(store, pages) == [row.tobytes() for row in image]
    store.write_each([pages[0], pages[0], pages[0]], rows(3, 7))
    assert contents(store, pages[:1]) == rows(1, 9), "one page, thrice: the last"


def test_what_cannot_be_written_ends_it_behind_those_before(store: Store) -> None:
    pages = store.allocate_many([40] * 3).tolist()
    with pytest.raises(PageNotFound):
        store.write_each([pages[0], 12345, pages[2]], rows(3, 1))
    assert contents(store, pages) == [bytes([1]) * 40, bytes(40), bytes(40)]
    with pytest.raises(InvalidDelta, match="fit"):
        store.write_each(pages, [bytes([5]) * 40, bytes(41), bytes([6]) * 40])
    assert contents(store, pages) == [bytes([5]) * 40, bytes(40), bytes(40)]
    with pytest.raises(UsageError, match="as many rows"):
        store.write_each(pages, rows(2, 1))


def test_listeners_hear_of_every_commit_and_snapshots_keep_what_they_hold(store: Store) -> None:
    pages = store.allocate_many([40] * 3).tolist()
    store.write_each(pages, rows(3, 1))
    heard: list[tuple[int, int]] = []
    store.listeners.append(lambda lsn, some: heard.extend((lsn, page) for page in some))
    last = store.write_each(pages, rows(3, 4))
    assert heard == [(last - 2, pages[0]), (last - 1, pages[1]), (last, pages[2])]
    store.listeners.clear()
    with store.snapshot() as snapshot:
        store.write_each(pages, rows(3, 8))
        assert [bytes(snapshot.view(page)) for page in pages] == rows(3, 4)
    assert contents(store, pages) == rows(3, 8)
    assert store.verify() == []


def test_a_group_is_durable_with_one_sync_and_longer_than_the_ring(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = store.allocate_many([400] * 50).tolist()
        store.sync()
        syncs = store.counters()["syncs"]
        last = store.write_each(pages, rows(50, 1, 400), durability="data")
        assert store.durable_lsn == last
        assert store.counters()["syncs"] == syncs + 1
        many = [pages[turn % 50] for turn in range(3000)]
        data = [bytes([turn % 251]) * 400 for turn in range(3000)]
        assert store.write_each(many, data) == last + 3000 == store.durable_lsn
        with pytest.raises(UsageError, match="durability"):
            store.write_each(pages[:1], rows(1, 1, 400), durability="sometimes")
        kept = contents(store, pages)
    with Store.open(tmp_path / "s") as store:
        assert contents(store, pages) == kept == data[-50:]


def test_a_death_leaves_the_first_commits_whole() -> None:
    if native_kernels() is None:
        pytest.skip("the native kernels are not installed: the long way's steps are tested elsewhere")
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        pages = store.allocate_many([40] * 4).tolist()
        lengths = set()
        for count in range(1, 400, 5):
            store.write_each(pages, [bytes(40)] * 4)
            child = os.fork()
            if not child:
                kill_at(count)
                store.write_each(pages, rows(4, 1))
                os._exit(0)
            died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
            store.mark(f"after {count}")  # the next owner of the lock mends what the dead one left
            done = sum(any(one) for one in contents(store, pages))
            assert contents(store, pages) == rows(4, 1)[:done] + [bytes(40)] * (4 - done)
            assert store.verify() == []
            lengths.add(done)
            if not died:
                break
        assert lengths == {0, 1, 2, 3, 4}
