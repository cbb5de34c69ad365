"""The native unpack kernels and their plain twins say the same of any bytes, right or mutilated."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stoker.formats.api import FORMATS, SampleSpec
from stoker.kernels import unpacking
from stoker.kernels.native import native_kernels

if native_kernels() is None:
    pytest.skip("the native module is not built, or STOKER_KERNELS=plain", allow_module_level=True)

_MANY = settings(max_examples=250, derandomize=True, deadline=None)
_EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4
)
_HEADER = st.one_of(
    st.text(alphabet="{}'\"descrfoatn_shpulTF:,() 0123456789<>|iO-", max_size=90),
    st.builds(
        "{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}{}".format,
        st.sampled_from(["|u1", "<f4", ">c16", "<c1", "|b1", "|f1", "<u1", "=i4", "<i3", "<c8", "<c16 "]),
        st.sampled_from(["True", "False", "false", "1"]),
        st.sampled_from(
            ["3,", "3", "", "3, 1", "1, 3,", "03,", "3, ", "3,1", "1, 1, 1, 1, 1, 1, 1, 3", "1, " * 8 + "3"]
        ),
        st.sampled_from(["", " ", "\n", "   \n", "\t", " x"]),
    ),
)


def _both(run):
    """Return what both kernels say."""
    found = [run()]
    real, unpacking.native_kernels = unpacking.native_kernels, lambda: None
    try:
        found.append(run())
    finally:
        unpacking.native_kernels = real
    return found


def _edited(data, edits):
    for place, put, taken in edits:
        at = int(place * len(data))
        data = data[:at] + put + data[at + taken :]
    return data


def _same(found):
    native, plain = found
    for ours, theirs in zip(native, plain, strict=True):
        assert np.array_equal(ours, theirs)


def _same_arrays(*files):
    data = np.frombuffer(b"".join(files), np.uint8)
    lengths = np.array([len(file) for file in files], np.int64)
    starts = np.cumsum(lengths) - lengths
    _same(_both(lambda: unpacking.npz_locate(data, starts, lengths)))
    _same(_both(lambda: unpacking.npy_locate(data, starts, lengths)))


def _same_records(file, count, window_bytes):
    data = np.frombuffer(file, np.uint8)
    whole = np.zeros(1, np.int64), np.array([len(file)])
    _same(_both(lambda: unpacking.examples_locate(data, *whole, np.array([min(count, len(file) // 16)]))))

    def scanned():
        columns = np.zeros((2, 4), np.int64)
        return np.array(unpacking.records_scan(data[:window_bytes], len(file), *columns)), columns

    _same(_both(scanned))


def _archive(array, label, save):
    out = io.BytesIO()
    save(out, x=array, **({} if label is None else {"y": label}))
    return out.getvalue()


_ARCHIVES = st.builds(
    _archive,
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes(), hnp.byte_string_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=9, min_side=0, max_side=3),
    ),
    st.one_of(st.none(), hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))),
    st.sampled_from([np.savez, np.savez_compressed]),
)


@_MANY
@given(st.lists(_ARCHIVES, max_size=3))
def test_both_find_the_same_in_archives_of_numpy(files):
    _same_arrays(*files)


@_MANY
@given(_ARCHIVES, _EDITS)
def test_both_find_the_same_in_mutilated_archives(file, edits):
    bad = _edited(file, edits)
    _same_arrays(bad, file)
    at = bad.find(b"\x93NUMPY")
    _same_arrays(bad[at:] if at > 0 else bad)


@_MANY
@given(_HEADER, st.integers(1, 4), st.integers(-3, 3), st.binary(max_size=4))
def test_both_read_the_same_headers(text, version, wrong_bytes, content):
    words = text.encode()
    length = max(len(words) + wrong_bytes, 0).to_bytes(2 if version == 1 else 4, "little")
    _same_arrays(b"\x93NUMPY" + bytes([version, 0]) + length + words + content)


def _records(sizes):
    made = FORMATS.load("tfrecord")
    run = b""
    for size in sizes:
        spec = made.check_spec(SampleSpec((size,)))
        run += b"".join(made.encode(spec, lambda _, spec=spec: np.zeros(spec.shape, np.uint8)))
    return run


_RUNS = st.lists(st.integers(1, 300), max_size=4).map(_records)


@_MANY
@given(_RUNS, st.integers(0, 5), st.integers(0, 1500))
def test_both_find_the_same_in_records(run, count, window_bytes):
    _same_records(run, count, window_bytes)


@_MANY
@given(_RUNS, _EDITS, st.integers(1, 5), st.integers(0, 1500))
def test_both_find_the_same_in_mutilated_records(run, edits, count, window_bytes):
    _same_records(_edited(run, edits), count, window_bytes)


@_MANY
@given(st.binary(max_size=60), st.booleans(), st.sampled_from([0, 1, 2, 3]))
def test_both_find_the_same_in_any_example(payload, wrapped, depth):
    for tag in (b"\x0a", b"\x0a", b"\x0a")[:depth]:
        payload = tag + bytes([len(payload)]) + payload if wrapped else payload
    length = len(payload).to_bytes(8, "little")
    framed = length + unpacking.masked_crc32c(length).to_bytes(4, "little") + payload + bytes(4)
    _same_records(framed, 1, 100)


def _feature(key, value):
    return b"\x0a" + bytes([len(key) + len(value) + 4, 10, len(key)]) + key + bytes([18, len(value)]) + value


_KEYS = st.sampled_from([b"image", b"size", b"other", b""])
_IMAGES = [b"\x0a\x05\x0a\x03abc", b"\x0a\x02\x0a\x00", b"\x0a\x04\x0a\x00\x0a\x00", b""]
_NUMBERS = [b"\x1a\x03\x0a\x01\x03", b"\x1a\x02\x08\x03", b"\x1a\x04\x0a\x02\x03\x03", b"\x1a\x00"]
_FEATURES = st.lists(st.builds(_feature, _KEYS, st.sampled_from([*_IMAGES, *_NUMBERS])), max_size=4)


@_MANY
@given(_FEATURES)
def test_both_find_the_same_in_examples_of_any_features(features):
    inner = b"".join(features)
    payload = b"\x0a" + bytes([len(inner)]) + inner
    length = len(payload).to_bytes(8, "little")
    framed = length + unpacking.masked_crc32c(length).to_bytes(4, "little") + payload + bytes(4)
    _same_records(framed, 1, 100)
