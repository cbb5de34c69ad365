"""Chunked datasets are put together here, not by the library: every form agrees with it, and no chunk is believed."""

import io
import struct

import h5py
import numpy as np
import pytest
from format_files import decode_one

from stoker.core.errors import CorruptError
from stoker.formats.hdf5 import FORMAT
from stoker.formats.hdf5_chunks import DEFLATE, FLETCHER32, LZF, SHUFFLE, Filter, fletcher32, unpack

_ARRAY = np.arange(7 * 5 * 3, dtype=np.int32).reshape(7, 5, 3)


def _file(**creation):
    options = {name: creation.pop(name) for name in ("libver", "userblock_size") if name in creation}
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        file.create_dataset("records_0", data=_ARRAY, **creation)
    return out.getvalue()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("chunks", [(7, 5, 3), (2, 2, 2), (1, 5, 3), (3, 4, 1), (7, 1, 1)])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"shuffle": True},
        {"fletcher32": True},
        {"compression": "lzf"},
        {"compression": "lzf", "shuffle": True},
    ],
)
def test_every_pipeline_gives_what_the_library_gives(libver, chunks, filters):
    data = _file(libver=libver, chunks=chunks, **filters)
    block = decode_one(FORMAT, data)
    assert np.array_equal(block.columns["records"], _ARRAY)
    viewed = chunks == _ARRAY.shape and not filters
    assert block.copied_bytes == (0 if viewed else _ARRAY.nbytes)


@pytest.mark.parametrize("maxshape", [(None, 5, 3), (None, None, 3), (20, 5, 3)])
def test_every_index_of_chunks_is_read(maxshape):
    for libver in ("earliest", "latest"):
        data = _file(libver=libver, maxshape=maxshape, chunks=(2, 3, 3))
        assert np.array_equal(decode_one(FORMAT, data).columns["records"], _ARRAY)


def test_a_user_block_shifts_chunks_too():
    data = _file(userblock_size=512, chunks=(2, 5, 3), compression="gzip")
    assert np.array_equal(decode_one(FORMAT, data).columns["records"], _ARRAY)


def _partly(**creation):
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        dataset = file.create_dataset("records_0", (6, 4), "f4", **creation)
        if "chunks" in creation:
            dataset[2] = 5
    return out.getvalue()


def test_what_was_never_written_is_zero():
    records = decode_one(FORMAT, _partly(chunks=(2, 4))).columns["records"]
    assert records[2].tolist() == [5] * 4
    assert records.sum() == 20
    assert not decode_one(FORMAT, _partly()).columns["records"].any()


@pytest.mark.parametrize("creation", [{"chunks": (2, 4)}, {}])
def test_holes_with_a_value_of_their_own_are_refused(creation):
    with pytest.raises(CorruptError, match="holes"):
        decode_one(FORMAT, _partly(fillvalue=9, **creation))


def test_a_dataset_within_its_header_is_read():
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((7, 5, 3))
        made = h5py.h5d.create(file.id, b"records_0", h5py.h5t.NATIVE_INT32, space, dcpl=plan)
        h5py.Dataset(made)[...] = _ARRAY
    assert np.array_equal(decode_one(FORMAT, out.getvalue()).columns["records"], _ARRAY)


def test_a_chunk_that_fails_its_checksum_is_corrupt():
    data = _file(chunks=(7, 5, 3), fletcher32=True)
    at = data.index(_ARRAY.tobytes()) + 11
    with pytest.raises(CorruptError, match="checksum"):
        decode_one(FORMAT, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_chunk_that_unpacks_to_another_size_is_corrupt():
    """The old chunk index has no checksum: what it tells can be changed."""
    data = _file(libver="earliest", chunks=(7, 5, 3))
    size = struct.pack("<I", _ARRAY.nbytes)
    assert data.count(size + bytes(4) + bytes(8)) >= 1, "a key of the index: size, filter mask, corner"
    for told in (4, 1 << 20):
        with pytest.raises(CorruptError):
            decode_one(FORMAT, data.replace(size + bytes(4), struct.pack("<I", told) + bytes(4)))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 131_073, 400_000])
def test_both_sums_are_those_of_the_plain_algorithm(size):
    data = np.random.default_rng(size).bytes(size)
    first = second = 0
    for high, low in zip(data[::2], data[1::2] + b"\0", strict=False):
        first = (first + (high << 8 | low)) % 65535
        second = (second + first) % 65535
    assert fletcher32(memoryview(data)) == (first, second)


@pytest.mark.parametrize(
    ("packed", "code"),
    [(b"not deflate", DEFLATE), (b"", DEFLATE), (b"", FLETCHER32), (b"abc", FLETCHER32), (b"12345678", SHUFFLE)],
)
def test_malformed_chunks_are_corrupt(packed, code):
    with pytest.raises(CorruptError):
        unpack(memoryview(packed), [Filter(code, (4,))], 0, 16)


def test_a_chunk_bomb_is_stopped():
    import zlib

    with pytest.raises(CorruptError, match="too much"):
        unpack(memoryview(zlib.compress(bytes(1 << 20))), [Filter(DEFLATE, (4,))], 0, 1000)


def test_filters_marked_as_left_out_are_left_out():
    data = bytes(range(16))
    assert bytes(unpack(memoryview(data), [Filter(SHUFFLE, (4,)), Filter(DEFLATE, (4,))], 0b11, 16)) == data


def test_lzf_with_a_lying_size_is_refused():
    data = _file(libver="earliest", chunks=(7, 5, 3), compression="lzf")
    parameters = struct.pack("<3I", 4, 261, _ARRAY.nbytes)
    assert data.count(parameters) == 1
    with pytest.raises(CorruptError, match="lzf"):
        decode_one(FORMAT, data.replace(parameters, struct.pack("<3I", 4, 261, 16)))
    assert LZF == 32000
