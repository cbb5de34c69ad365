"""Layouts as columns say what layouts with an object a sample say, and take next to no memory."""

import tracemalloc

import numpy as np
import pytest
from format_files import encode, told

from stoker.formats.api import FORMATS
from stoker.formats.columns import ColumnLayout, LaysOutColumns, column_layout
from stoker.formats.ranges import MemorySource

_NAMES = ["raw", "indexed_binary", "mmap_indexed_binary", "tfrecord"]


class Huge(MemorySource):
    """A file of any size without bytes."""

    def __init__(self, size_bytes, side_files):
        super().__init__(b"", side_files)
        self.size_bytes = size_bytes


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("sides", [True, False])
def test_columns_and_extents_say_the_same(name, sides):
    made = FORMATS.load(name)
    spec, data = encode(made, (3, 5), samples=7)
    source = MemorySource(data, made.side_files(spec) if sides else {})
    columns, layout = made.layout_columns(source, told(spec)), made.layout(source, told(spec))
    assert columns.layout() == layout
    assert columns.samples == len(layout.extents) == 7
    assert columns.held_bytes == 0


def test_other_formats_offer_no_columns():
    assert {name for name in FORMATS.names() if isinstance(FORMATS.load(name), LaysOutColumns)} == set(_NAMES)


def test_samples_of_many_sizes_are_kept_as_two_numbers_each():
    lengths = np.array([3, 4, 5, 1])
    layout = column_layout(np.array([0, 3, 7, 20]), lengths, "context", joinable=True)
    assert layout.held_bytes == 64
    assert [extent.ranges[0] for extent in layout.layout().extents] == [(0, 3), (3, 4), (7, 5), (20, 1)]
    assert [column.tolist() for column in layout.spans(np.array([1, 0]), 3)] == [[20, 0], [1, 12], [1, 3]]


def test_neighbours_are_joined_where_they_touch():
    offsets, lengths = np.array([0, 4, 10, 13]), np.array([4, 5, 3, 3])
    layout = column_layout(offsets, lengths, None, joinable=True)
    assert [layout.joins(count) for count in (1, 2, 3, 4)] == [True, True, False, False]
    assert not column_layout(offsets, lengths, None, joinable=False).joins(2)
    assert ColumnLayout(5, None, joinable=True, sample_bytes=4).joins(100)


def test_the_last_joined_extent_holds_what_is_left():
    layout = ColumnLayout(10, None, joinable=True, sample_bytes=8)
    assert [column.tolist() for column in layout.spans(np.array([0, 2]), 4)] == [[0, 64], [32, 16], [4, 2]]


def test_a_hundred_million_raw_samples_take_no_memory():
    source = Huge(100_000_000 * 64, {})
    tracemalloc.start()
    try:
        layout = FORMATS.load("raw").layout_columns(source, {"shape": (64,)})
        assert layout.samples == 100_000_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_long_index_is_read_in_columns():
    count, size = 300_000, 116
    text = b"".join(b"%d %d\n" % (number * size, size) for number in range(count))
    source = Huge(count * size, {".idx": text})
    tracemalloc.start()
    try:
        layout = FORMATS.load("tfrecord").layout_columns(source, {})
        assert (layout.samples, layout.sample_bytes, layout.held_bytes) == (count, size, 0)
        assert tracemalloc.get_traced_memory()[1] < 80 * count
    finally:
        tracemalloc.stop()
