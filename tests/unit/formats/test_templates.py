"""HDF5 files known by sight: as the library finds them, and only where nothing but the data differs."""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import h5py
import numpy as np
import pytest
from format_files import content, encode

from stoker.core.errors import CorruptError
from stoker.formats import hdf5
from stoker.formats.api import whole_file_layout
from stoker.formats.hdf5 import Hdf5
from stoker.formats.templates import Templates, learn


def _decode(made, data, samples=2):
    layout = whole_file_layout(len(data), samples)
    return made.decode(memoryview(data), layout.extents[0], layout)


@pytest.fixture
def no_library(monkeypatch):
    def forbid():
        monkeypatch.setattr(hdf5.h5py, "File", None)

    return forbid


def test_the_third_file_of_a_make_needs_no_library(no_library):
    made = Hdf5()
    spec, data = encode(made, (5, 7), "float32", 2)
    for _ in range(2):
        _decode(made, data)
    no_library()
    other = data.replace(content(spec, 1).tobytes(), content(spec, 9).tobytes())
    block = _decode(made, other)
    assert np.array_equal(block.sample(0), content(spec, 0))
    assert np.array_equal(block.sample(1), content(spec, 9))
    assert block.columns["labels"].tolist() == [0, 0]
    assert np.shares_memory(block.sample(1), np.frombuffer(other, np.uint8))


@pytest.mark.parametrize("library", ["earliest", "v110", "latest"])
def test_a_wrong_byte_anywhere_means_what_it_means_to_the_library(library):
    out = io.BytesIO()
    with h5py.File(out, "w", libver=library) as file:
        file["records_0"] = np.arange(24, dtype=np.int32).reshape(2, 12)
        file["labels"] = np.array([3, 4])
    data = out.getvalue()
    made = Hdf5()
    for _ in range(2):
        _decode(made, data)
    assert made._templates.find(memoryview(data)) is not None
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :]
        assert _outcome(made, bad) == _outcome(Hdf5(), bad), at


def _outcome(made, data):
    try:
        block = _decode(made, data)
    except CorruptError as error:
        return str(error)
    return [(name, column.shape, column.dtype, column.tobytes()) for name, column in block.columns.items()]


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"num_dset_per_record": 2}])
def test_what_is_copied_is_left_to_the_library(options):
    made = Hdf5()
    _, data = encode(made, (4, 6), samples=2, **options)
    for _ in range(4):
        assert _decode(made, data).copied_bytes > 0
    assert made._templates.find(memoryview(data)) is None


def _columns(view, start, stop):
    return {"x": np.frombuffer(view[start:stop], np.uint8)}


def test_files_whose_data_decide_where_data_lie_are_not_learnt():
    """A lying file may lay its data over what is read to find them."""
    view = memoryview(bytes(range(100)))

    def find(source, view):
        start = source.read(60, 1)[0] % 50
        return _columns(view, start, 80), 0

    assert learn(view, _columns(view, 10, 80), lambda source, view: (_columns(view, 10, 80), 0)) is not None
    assert learn(view, find(_source(view), view)[0], find) is None


def _source(view):
    return hdf5.MemorySource(view)


def test_columns_that_are_no_views_or_overlap_are_not_learnt():
    view = memoryview(bytes(100))

    def refuse(source, view):
        raise CorruptError("no")

    for columns in (
        {"x": np.zeros(10)},
        {},
        {**_columns(view, 0, 50), "y": np.frombuffer(view[40:60], np.uint8)},
        {"x": np.frombuffer(view, np.uint8)[::2]},
        {"x": np.frombuffer(view, np.uint8)[:0]},
    ):
        assert learn(view, columns, lambda source, view, columns=columns: (columns, 0)) is None
    assert learn(view, _columns(view, 10, 80), refuse) is None
    large = memoryview(bytes(100_000))
    far = partial(_columns, large, 90_000, 90_010)
    assert learn(large, far(), lambda source, view: (far(), 0)) is None


def test_templates_are_bounded_and_learnt_from_the_second_file_of_a_length_on():
    known = Templates()
    asked = []

    def find(source, view):
        asked.append(len(view))
        return _columns(view, 8, 16), 0

    for number in range(20):
        view = memoryview(bytes([number]) * 24)
        known.offer(view, _columns(view, 8, 16), find)
    assert 0 < len(asked) < 10
    for size_bytes in range(30, 1000):
        view = memoryview(bytes(size_bytes))
        for _ in range(2):
            known.offer(view, _columns(view, 8, 16), find)
    assert len(asked) < 300


def test_many_threads_learn_the_same():
    made = Hdf5()
    spec, data = encode(made, (64,), samples=2)
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda _: _decode(made, data), range(40)))
    assert all(np.array_equal(block.sample(1), content(spec, 1)) for block in blocks)


def test_files_of_two_makes_are_decoded_together():
    made = Hdf5()
    _, first = encode(made, (64,), samples=2)
    _, other = encode(made, (8, 8), samples=2)
    files = [first, other, first, first]
    for file in (first, first, other, other):
        _decode(made, file)
    starts = np.cumsum([0, *(len(file) for file in files[:-1])])
    lengths = np.array([len(file) for file in files])
    many = made.decode_many(np.frombuffer(b"".join(files), np.uint8), starts, lengths, 2, None)
    assert [sample.shape for sample in many.samples] == [(64,)] * 2 + [(8, 8)] * 2 + [(64,)] * 4
    assert len(many.column("labels")) == 8
