"""NPY: NumPy's own bytes, and headers read without evaluating them."""

import io
import math

import numpy as np
import pytest
from format_files import CountingSource, content, decode_one, encode

from stoker.core.errors import CorruptError
from stoker.formats.arrays import build_header, read_header, view_array
from stoker.formats.npy import FORMAT


def _npy(array, version=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=True)
    return out.getvalue()


def _with_header(text, body=b"", version=1):
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text + body


@pytest.mark.parametrize(("shape", "samples"), [((256, 256), 1), ((7, 5, 3), 4)])
def test_file_is_payload_plus_128_bytes_and_numpy_reads_it(shape, samples):
    spec, data = encode(FORMAT, shape, "uint16", samples)
    assert len(data) == spec.payload_bytes + 128
    array = np.load(io.BytesIO(data), allow_pickle=False)
    assert array.shape == (*shape, samples)
    assert np.array_equal(array[..., 0], content(spec, 0))
    assert data == _npy(array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", ">f8", "complex64", "bool", "S5", "datetime64[ns]"])
def test_arrays_of_numpy_are_read_in_every_version_and_order(version, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4).astype(dtype), order=order)
    data = _npy(array, version)
    block = decode_one(FORMAT, data)
    assert np.array_equal(np.moveaxis(block.columns["x"], 0, -1), array)
    assert np.shares_memory(block.columns["x"], np.frombuffer(data, np.uint8))
    assert block.copied_bytes == 0


def test_layout_reads_only_the_header():
    _, data = encode(FORMAT, (512, 512), samples=3)
    source = CountingSource(data)
    assert FORMAT.layout(source, {}).extents[0].samples == 3
    assert source.read_bytes == 12 + 128


def test_headers_of_other_writers_are_read():
    """Another key order, double quotes, no trailing comma, Python 2 longs."""
    text = b'{"shape":(2L, 3L),"fortran_order":False,"descr":"<i4"}\n'
    array = view_array(memoryview(_with_header(text, bytes(24))))
    assert array.shape == (2, 3)


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (__import__('os').system('true'),), }",
        b"{'descr': '<i4', 'fortran_order': __import__('os'), 'shape': (1,), }",
        b"{'descr': '<i4', 'fortran_order': 'True', 'shape': (1,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': 3, }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,,2), }",
        b"{'descr': '<i4', 'fortran_order': False, }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        b"{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,), } and words",
        b"{'descr': '<i3', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '|V0', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (" + b"1, " * 65 + b"), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000,), }",
        b"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }",
        b"\xff\xfe{}",
        b"",
        b"{" * 3000,
    ],
)
def test_malformed_or_hostile_headers_are_corrupt(text):
    with pytest.raises(CorruptError):
        decode_one(FORMAT, _with_header(text, bytes(4)))


@pytest.mark.parametrize("version", [0, 4, 255])
def test_unknown_versions_are_corrupt(version):
    with pytest.raises(CorruptError, match="version"):
        decode_one(FORMAT, _with_header(b"{}" * 40, version=version))


def test_a_header_longer_than_64_kib_is_refused_unread():
    with pytest.raises(CorruptError, match="too long"):
        read_header(memoryview(b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + bytes(100)))


def test_pickled_array_is_refused():
    with pytest.raises(CorruptError, match="refused"):
        decode_one(FORMAT, _npy(np.array([None, {}], dtype=object)))


@pytest.mark.parametrize("change", [-1, 1, 8])
def test_too_few_or_too_many_bytes_are_corrupt(change):
    data = _npy(np.arange(10, dtype=np.uint8))
    bad = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(CorruptError, match="disagree"):
        decode_one(FORMAT, bad)


def test_scalar_has_no_sample_axis():
    with pytest.raises(CorruptError, match="sample axis"):
        decode_one(FORMAT, _npy(np.float32(1)))


@pytest.mark.parametrize("shape", [(), (1,), (10**9, 10**6), tuple(range(1, 15))])
def test_header_says_what_numpy_says(shape):
    header = build_header(shape, np.dtype("<f4"))
    assert len(header) % 64 == 0
    read = read_header(memoryview(header))
    assert (read.shape, read.dtype, read.fortran_order) == (shape, np.dtype("<f4"), False)
    assert read.data_bytes == math.prod(shape) * 4
