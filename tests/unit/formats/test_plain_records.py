"""raw, the indexed binaries and synthetic."""

import numpy as np
import pytest
from format_files import CountingSource, content, decode, decode_one, encode, told

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Extent
from stoker.formats.indexed import INDEXED, MMAP_INDEXED
from stoker.formats.ranges import MemorySource
from stoker.formats.raw import FORMAT as RAW
from stoker.formats.synthetic import FORMAT as SYNTHETIC


def _index(*numbers):
    return np.array(numbers, np.uint64).tobytes()


@pytest.mark.parametrize("made", [RAW, INDEXED, MMAP_INDEXED])
def test_samples_lie_back_to_back_and_are_views(made):
    spec, data = encode(made, (3, 4), "int32", 5)
    assert data == b"".join(content(spec, index).tobytes() for index in range(5))
    for index, block in enumerate(decode(made, data, told(spec), made.side_files(spec))):
        assert np.array_equal(block.sample(0), content(spec, index))
        assert np.shares_memory(block.columns["x"], np.frombuffer(data, np.uint8))
        assert block.copied_bytes == 0


@pytest.mark.parametrize("made", [RAW, INDEXED])
def test_neighbouring_samples_may_be_read_as_one(made):
    spec, data = encode(made, (6,), samples=5)
    layout = made.layout(MemorySource(data, made.side_files(spec)), told(spec))
    block = made.decode(memoryview(data)[6:24], Extent(((6, 18),), 1, 3), layout)
    assert np.array_equal(block.columns["x"][2], content(spec, 3))


def test_layout_of_plain_files_reads_nothing():
    for made in (RAW, INDEXED):
        source = CountingSource(bytes(60))
        assert len(made.layout(source, {"shape": (3, 4)}).extents) == 5
        assert [extent.length_bytes for extent in made.layout(source, {"samples": 3}).extents] == [20, 20, 20]
        assert source.reads == []


def test_raw_needs_to_be_told_what_it_holds():
    with pytest.raises(UsageError, match="shape, or samples"):
        RAW.layout(MemorySource(bytes(60)), {})


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (7,)},
        {"samples": 7},
        {"shape": (6,), "samples": 9},
        {"samples": 61},
        {"samples": 4, "dtype": "float64"},
        {"shape": (100,)},
        {"shape": (10**30,)},
    ],
)
def test_raw_files_that_do_not_fit_are_corrupt(options):
    with pytest.raises(CorruptError):
        RAW.layout(MemorySource(bytes(60)), options)


@pytest.mark.parametrize(
    "options", [{"shape": "3"}, {"shape": [0]}, {"shape": [1.5]}, {"samples": -1}, {"samples": True}, {"dtype": "odd"}]
)
def test_facts_of_the_wrong_kind_are_refused(options):
    with pytest.raises(UsageError):
        RAW.layout(MemorySource(bytes(60)), options)


def test_companions_hold_native_64_bit_numbers():
    spec, _ = encode(INDEXED, (10, 2), samples=3)
    assert INDEXED.side_files(spec) == {".off.idx": _index(0, 20, 40), ".sz.idx": _index(20, 20, 20)}
    assert INDEXED.side_key("train/img_0_of_8.indexed_binary", ".off.idx") == (
        "train/img_0_of_8.indexed_binary.off.idx"
    )


def test_samples_of_different_sizes_are_read_by_their_index():
    sides = {".off.idx": _index(0, 3, 10), ".sz.idx": _index(3, 5, 2)}
    blocks = decode(INDEXED, b"aaa--bbbbbcc"[:3] + b"bbbbb--cc", None, sides)
    assert [block.sample(0).tobytes() for block in blocks] == [b"aaa", b"bbbbb", b"cc"]


def test_a_file_longer_than_its_index_is_read():
    """DLIO's collective writer overruns the last sample; the index is right."""
    sides = {".off.idx": _index(0, 4), ".sz.idx": _index(4, 4)}
    assert len(decode(INDEXED, b"aaaabbbb" + bytes(100), {"samples": 2}, sides)) == 2


@pytest.mark.parametrize(
    ("offsets", "sizes"),
    [
        (_index(0, 4, 0, 4), _index(4, 4, 4, 4)),  # restarts, as DLIO's buffered writer leaves it
        (_index(0, 4), _index(4, 4, 4)),
        (_index(0, 4), _index(4, 2**63)),
        (_index(0, 12), _index(4, 8)),
        (_index(0, 2), _index(4, 4)),
        (_index(0, 4), _index(4, 0)),
        (_index(0, 4)[:-1], _index(4, 4)),
        (_index(0, 4), None),
        (None, _index(4, 4)),
        (_index(2**64 - 4, 4), _index(8, 4)),
    ],
)
def test_companions_that_lie_are_corrupt(offsets, sizes):
    sides = {".off.idx": offsets, ".sz.idx": sizes}
    with pytest.raises(CorruptError):
        INDEXED.layout(MemorySource(bytes(16), {key: value for key, value in sides.items() if value}), {})


def test_companions_and_told_samples_must_agree():
    spec, data = encode(INDEXED, (6,), samples=2)
    with pytest.raises(CorruptError, match="number of samples"):
        INDEXED.layout(MemorySource(data, INDEXED.side_files(spec)), {"samples": 3})


def test_synthetic_file_holds_its_number_and_gives_a_constant():
    spec, data = encode(SYNTHETIC, (4, 5), "float32", 6, number=142)
    assert data == b"142"
    block = decode_one(SYNTHETIC, data, told(spec))
    assert block.columns["x"].shape == (6, 4, 5)
    assert block.columns["x"].dtype == np.float32
    assert (block.columns["x"] == 42).all()
    assert block.copied_bytes == 4


def test_synthetic_samples_take_no_memory_however_large():
    block = decode_one(SYNTHETIC, b"7", {"shape": (1 << 20, 1 << 10), "samples": 1000})
    assert block.sample(999)[5, 5] == 7


@pytest.mark.parametrize("data", [b"", b"x", b"-1", b"1.5", b"9" * 40, b"1 2", b"\xb2"])
def test_malformed_synthetic_files_are_corrupt(data):
    with pytest.raises(CorruptError, match="whole number"):
        decode_one(SYNTHETIC, data, {"shape": (2,)})


def test_synthetic_needs_a_shape_and_a_number_that_is_one():
    with pytest.raises(UsageError, match="shape"):
        SYNTHETIC.layout(MemorySource(b"1"), {})
    with pytest.raises(UsageError, match="number"):
        encode(SYNTHETIC, (2,), number="one")
