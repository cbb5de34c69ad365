"""Buffers that come back, layouts that are kept, checksums that are drawn: the parts by themselves."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from loader_datasets import build

from stoker.core.errors import UsageError
from stoker.core.plan import Spread
from stoker.formats.api import FORMATS, Extent, Layout
from stoker.formats.columns import ColumnLayout
from stoker.loader import layouts as layouts_module
from stoker.loader.layouts import FileLayout, Layouts, Piece
from stoker.loader.lending import Lender
from stoker.loader.reads import Read, reads_of
from stoker.loader.spread import draw_seconds
from stoker.loader.tasks import FileChoice
from stoker.storage.api import Store
from stoker.storage.opening import open_store

BIG = 1 << 20


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_buffer_comes_back_only_when_its_last_view_is_gone() -> None:
    lender = Lender(8 * BIG)
    lent = lender.lend(BIG)
    lent[:] = 7
    where = address(lent)
    part = np.frombuffer(lent.data[100:200], np.uint8).reshape(10, 10)[3]
    del lent
    other = lender.lend(BIG)
    other[:] = 9
    assert address(other) != where
    assert (part == 7).all()
    assert lender.idle_bytes == 0
    del part
    assert lender.idle_bytes == BIG
    assert address(lender.lend(BIG)) == where


def test_buffers_begin_on_a_page_whatever_their_size() -> None:
    lender = Lender(8 * BIG)
    for size in (1, 4095, 70_000, BIG + 1):
        lent = lender.lend(size)
        assert (lent.nbytes, address(lent) % 4096) == (size, 0)
        assert lent.flags.writeable
    assert lender.lend(0).nbytes == 0
    stacked = lender.lend_array((3, 5), np.dtype("float64"))
    assert (stacked.shape, stacked.dtype, address(stacked) % 4096) == ((3, 5), np.float64, 0)


def test_idle_buffers_are_bounded_and_a_much_smaller_wish_does_not_take_them() -> None:
    lender = Lender(2 * BIG)
    held = [lender.lend(BIG) for _ in range(5)]
    held.clear()
    assert lender.idle_bytes == 2 * BIG
    small = lender.lend(BIG // 8)
    assert lender.idle_bytes == 2 * BIG
    del small


def test_a_closed_lender_takes_nothing_back() -> None:
    lender = Lender(8 * BIG)
    lent, other = lender.lend(BIG), lender.lend(BIG)
    del other
    lender.close()
    assert lender.idle_bytes == 0
    lent[:] = 1
    del lent
    assert lender.idle_bytes == 0


def test_views_dropped_in_many_threads_at_once_lose_no_buffer() -> None:
    lender = Lender(64 * BIG)

    def churn() -> None:
        for number in range(200):
            lent = lender.lend(100_000 + number % 7 * 1000)
            lent[:8] = number % 251
            assert (lent[:8] == number % 251).all()
            if number % 50 == 0:
                gc.collect()

    crowd = [threading.Thread(target=churn) for _ in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    gc.collect()
    assert 0 < lender.idle_bytes <= 4 * 7 * 200_000


def piece(*ranges: tuple[int, int]) -> Piece:
    extent = Extent(ranges, 0, 1)
    return Piece(extent, Layout((extent,)), (0,), (0,))


def test_ranges_that_touch_are_read_as_one() -> None:
    pieces = [piece((0, 10)), piece((10, 5), (20, 5)), piece((25, 5)), piece((2, 3))]
    assert list(reads_of(pieces)) == [Read(0, 15, 0), Read(20, 10, 15), Read(2, 3, 25)]
    assert list(reads_of([piece((7, 0))])) == []


def test_single_sample_extents_are_kept_as_numbers() -> None:
    extents = tuple(Extent(((number * 10, 10),), number, 1) for number in range(100))
    found = FileLayout(Layout(extents, "context"))
    (wanted,) = found.pieces([42], 7)
    assert (wanted.extent, wanted.layout.context, wanted.places) == (extents[42], "context", (7,))
    assert found.held_bytes < 100 * 100


def test_samples_of_larger_extents_are_grouped_by_extent() -> None:
    extents = (Extent(((0, 4),), 0, 4), Extent(((4, 2),), 4, 2))
    found = FileLayout(Layout(extents))
    first, second = found.pieces(np.array([5, 0, 3, 4]), 10)
    assert (first.extent, list(first.wanted), list(first.places)) == (extents[0], [0, 3], [11, 12])
    assert (second.extent, list(second.wanted), list(second.places)) == (extents[1], [1, 0], [10, 13])
    assert (found.samples, found.samples_max) == (6, 4)


def test_neighbouring_samples_are_joined_into_windows_without_an_object_each() -> None:
    found = FileLayout(ColumnLayout(10**8, "context", joinable=True, sample_bytes=8), 4)
    assert (found.samples, found.samples_max, found.joined) == (10**8, 4, 4)
    assert found.held_bytes < 10_000
    first, second = found.pieces(np.array([9, 2, 8]), 5)
    assert (first.extent, list(first.wanted), list(first.places)) == (Extent(((0, 32),), 0, 4), [2], [6])
    assert (second.extent, list(second.wanted), list(second.places)) == (Extent(((64, 32),), 8, 4), [1, 0], [5, 7])
    assert second.layout.context == "context"


def test_windows_that_would_span_gaps_are_not_made() -> None:
    extents = tuple(Extent(((number * 10, 8),), number, 1) for number in range(4))
    assert FileLayout(Layout(extents, joinable=True), 2).joined == 1


def test_layouts_beyond_the_bound_are_read_again(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = build(memory, "tfrecord", [4] * 6)
    monkeypatch.setattr(layouts_module, "LAYOUT_BYTES_MAX", 3 * 1024 + 500)
    found = Layouts(memory, manifest, FORMATS.load("tfrecord"))
    for file in (0, 1, 2, 0, 3, 0):
        assert len(found.pieces(file, [1, 2], 0)) == 2
    assert found.knows(0)
    assert not found.knows(1)
    asked = found.requested_bytes
    found.pieces(1, [0], 0)
    assert found.requested_bytes > asked


def test_windows_follow_the_format(memory: Store, tmp_path: Path) -> None:
    def window(name: str, samples: list[int], options: dict | None = None) -> int:
        store = open_store(f"file://{tmp_path}?fsync=none")
        manifest = build(store, name, samples, (16,), options)
        return Layouts(store, manifest, FORMATS.load(name)).window_samples()

    assert window("npz", [1, 1]) == 0
    assert window("npz", [3, 5]) == 5
    assert window("tfrecord", [3, 5]) == 0
    assert window("parquet", [30, 50], {"row_group_size": 7}) == 7
    assert window("parquet", [3, 5], {"row_group_size": 1}) == 0
    assert window("csv", [3, 5]) == 5


def test_files_to_verify_are_drawn_by_ratio_seed_and_epoch() -> None:
    def drawn(ratio: float, epoch: int) -> set[int]:
        choice = FileChoice(ratio, 1, epoch)
        return {file for file in range(1000) if file in choice}

    assert len(drawn(0.0, 1)) == 0
    assert len(drawn(1.0, 1)) == 1000
    assert 50 < len(drawn(0.1, 1)) < 150
    assert drawn(0.1, 1) == drawn(0.1, 1) != drawn(0.1, 2)


@pytest.mark.parametrize(
    ("spread", "mean"),
    [
        (Spread("constant", {"value": 0.5}), 0.5),
        (Spread("normal", {"mean": 3.0, "stdev": 0.1}), 3.0),
        (Spread("uniform", {"min": 1.0, "max": 2.0}), 1.5),
        (Spread("gamma", {"shape": 2.0, "scale": 0.5}), 1.0),
        (Spread("exponential", {"scale": 0.25}), 0.25),
        (Spread("poisson", {"lam": 4.0}), 4.0),
        (Spread("normal", {"mean": -3.0, "stdev": 0.1}), 3.0),
    ],
)
def test_durations_are_drawn_as_told_and_never_negative(spread: Spread, mean: float) -> None:
    drawn = draw_seconds(spread, 7, 4000)
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(mean, rel=0.1)
    assert np.array_equal(drawn, draw_seconds(spread, 7, 4000))


def test_a_duration_without_its_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="no such kind"):
        draw_seconds(Spread("weibull", {}), 0, 1)
    with pytest.raises(UsageError, match="no good"):
        draw_seconds(Spread("normal", {"mean": 1.0}), 0, 1)
