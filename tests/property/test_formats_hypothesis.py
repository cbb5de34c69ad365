"""Formats under arbitrary shapes, types and bytes."""

import io
import struct
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import FORMATS, SampleSpec, reading_options, whole_file_layout
from stoker.formats.arrays import view_array
from stoker.formats.protobuf import example_frame, image_bytes_of, parse_example
from stoker.formats.ranges import MemorySource
from stoker.formats.thrift import parse
from stoker.formats.ziparchive import list_members, member_data
from stoker.testing.format_contract import check_block, extent_data

_EXACT = ["npz", "npy", "hdf5", "tfrecord", "csv", "parquet", "raw", "indexed_binary", "mmap_indexed_binary"]
_ALL = [*_EXACT, "jpeg", "png", "synthetic"]
_DTYPES = st.sampled_from(
    ["bool", "uint8", "int8", "uint16", "int32", "uint64", "int64", "float16", "float32", "float64"]
)
_BRIEF = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_MANY = settings(max_examples=300, derandomize=True, deadline=None)


def _encode(made, spec, samples):
    return b"".join(bytes(chunk) for chunk in made.encode(spec, lambda index: samples[index]))


@pytest.mark.parametrize("name", _EXACT)
@_BRIEF
@given(data=st.data())
def test_any_array_survives_the_round_trip_bit_by_bit(name, data):
    made = FORMATS.load(name)
    dtype = np.dtype(data.draw(_DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    count = data.draw(st.integers(1, 4))
    # A text form keeps that a float is not a number, but not which of the many it is.
    floats = {"allow_nan": False} if dtype.kind == "f" and name == "csv" else {}
    elements = hnp.from_dtype(dtype, **floats)
    samples = data.draw(hnp.arrays(dtype, (count, *shape), elements=elements))
    spec = made.check_spec(SampleSpec(shape, dtype.name, count))
    source = MemorySource(_encode(made, spec, samples), made.side_files(spec))
    layout = made.layout(source, reading_options(spec))
    position = 0
    for extent in layout.extents:
        block = made.decode(extent_data(source, extent), extent, layout)
        for index in range(block.samples):
            assert np.asarray(block.sample(index)).tobytes() == samples[position + index].tobytes()
        position += block.samples
    assert position == count


@_BRIEF
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_picture_survives_png(picture):
    made = FORMATS.load("png")
    data = _encode(made, SampleSpec(picture.shape), [picture])
    layout = whole_file_layout(len(data), 1)
    assert np.array_equal(made.decode(memoryview(data), layout.extents[0], layout).sample(0), picture)


@pytest.mark.parametrize("name", _ALL)
@_BRIEF
@given(data=st.binary(max_size=400), options=st.sampled_from([{}, {"samples": 2}, {"shape": (3,), "dtype": "int16"}]))
def test_arbitrary_bytes_are_corrupt_or_well_formed(name, data, options):
    _read_hostile(FORMATS.load(name), data, options)


_SMALL = {}


def _small(name):
    if name not in _SMALL:
        made = FORMATS.load(name)
        spec = made.check_spec(SampleSpec((4, 6), "uint8", 3 if made.multi_sample else 1))
        samples = np.random.default_rng(3).integers(0, 256, (3, *spec.shape), dtype=np.uint8)
        _SMALL[name] = (made, spec, _encode(made, spec, samples))
    return _SMALL[name]


@pytest.mark.parametrize("name", _ALL)
@settings(_BRIEF, max_examples=80)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8), st.integers(0, 8)), max_size=3)
)
def test_files_with_pieces_replaced_are_corrupt_or_well_formed(name, edits):
    """Every edit takes some bytes out at a place and puts others in."""
    made, spec, data = _small(name)
    for place, put, taken in edits:
        at = int(place * len(data))
        data = data[:at] + put + data[at + taken :]
    _read_hostile(made, data, reading_options(spec))


def _read_hostile(made, data, options):
    source = MemorySource(data)
    try:
        layout = made.layout(source, options)
        for extent in layout.extents:
            check_block(made.decode(extent_data(source, extent), extent, layout), extent)
    except CorruptError:
        return
    except UsageError as error:
        assert "do not tell their samples" in str(error)


@_MANY
@given(
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.byte_string_dtypes(), hnp.datetime64_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from("CF"),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_any_array_of_numpy_is_viewed_as_numpy_loads_it(array, order, version):
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array, order=order), version, allow_pickle=False)
    viewed = view_array(memoryview(out.getvalue()))
    loaded = np.load(io.BytesIO(out.getvalue()), allow_pickle=False)
    assert viewed.dtype == loaded.dtype
    assert viewed.shape == loaded.shape
    assert viewed.tobytes() == loaded.tobytes()


@_MANY
@given(st.text(alphabet="{}'\"descrfoatn_shpulTF:,() 0123456789<>|iO-", max_size=120))
def test_any_header_text_is_corrupt_or_plain(text):
    header = text.encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    try:
        assert view_array(memoryview(data)).nbytes == 0
    except CorruptError:
        return


@_MANY
@given(st.binary(max_size=200))
def test_any_bytes_given_to_the_inner_parsers_are_corrupt_or_fine(data):
    wanted = {1: {1: None, 2: {1: None}}, 2: None, 3: {1: None}}
    for run in (
        partial(parse, data, wanted),
        partial(parse_example, memoryview(data)),
        partial(_members, b"PK\x03\x04" + data),
        partial(_members, data + b"PK\x05\x06" + bytes(18)),
    ):
        try:
            run()
        except CorruptError:
            continue


def _members(data):
    for member in list_members(MemorySource(data)).values():
        member_data(memoryview(data), member, verify=True)


@_MANY
@given(st.integers(0, 1 << 33))
def test_image_size_and_example_size_tell_each_other(size):
    head, tail = example_frame(size)
    assert image_bytes_of(len(head) + size + len(tail)) == size
