"""Parquet: Arrow reads ours, we read Arrow's, and only the columns wanted are touched."""

import io
import struct
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import CountingSource, content, decode, encode, told

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import Extent, SampleSpec, whole_file_layout
from stoker.formats.parquet import FORMAT
from stoker.formats.parquet_columns import parse_columns, split_rows
from stoker.formats.parquet_schemas import dlrm_columns, flux_columns
from stoker.formats.ranges import MemorySource
from stoker.testing.format_contract import extent_data

_COLUMNS = [
    {"name": "a", "dtype": "float32"},
    {"name": "b", "dtype": "int64", "read": False},
    {"name": "c", "dtype": "uint8", "size": 4},
    {"name": "d", "dtype": "string", "size": 3},
    {"name": "e", "dtype": "bool"},
]


def _parquet(columns, **options):
    out = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, out, **options)
    return out.getvalue()


def _rows(spec):
    return np.stack([content(spec, index) for index in range(spec.samples)])


def test_arrow_finds_one_fixed_size_list_called_data():
    spec, data = encode(FORMAT, (4, 5), "int16", 7, row_group_size=3)
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 3
    field = file.schema_arrow.field("data")
    assert pa.types.is_fixed_size_list(field.type)
    assert (field.type.list_size, field.type.value_type) == (40, pa.uint8())
    assert bytes(file.read().column("data")[6].as_py()) == content(spec, 6).tobytes()


def test_file_is_about_as_large_as_its_payload():
    spec, data = encode(FORMAT, (4096,), samples=64)
    assert len(data) < spec.payload_bytes * 1.03


def test_arrow_finds_the_columns_and_their_values():
    spec, data = encode(FORMAT, (99,), samples=6, columns=_COLUMNS, row_group_size=4)
    assert (spec.shape, spec.dtype) == ((4 + 8 + 4 + 3 + 1,), "uint8")
    values = split_rows(_rows(spec), parse_columns(_COLUMNS))
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.names == ["a", "b", "c", "d", "e"]
    assert table.column("a").to_numpy().tobytes() == values["a"].tobytes()
    assert table.column("b").to_pylist() == values["b"].tolist()
    assert table.column("c").to_pylist() == values["c"].tolist()
    assert [text.encode() for text in table.column("d").to_pylist()] == [row.tobytes() for row in values["d"]]
    assert table.column("e").to_pylist() == values["e"].tolist()


def test_strings_are_printable():
    rows = np.arange(256, dtype=np.uint8).reshape(256, 1)
    text = split_rows(rows, parse_columns([{"name": "t", "dtype": "string"}]))["t"].tobytes()
    assert text.decode("ascii").isprintable()


def test_only_the_columns_that_are_read_are_asked_for():
    spec, data = encode(FORMAT, (1,), samples=3000, columns=_COLUMNS, row_group_size=1000)
    source = CountingSource(data)
    layout = FORMAT.layout(source, spec.options)
    assert source.read_bytes <= 64 << 10
    metadata = pq.read_metadata(io.BytesIO(data))
    skipped = metadata.row_group(0).column(1).total_compressed_size
    whole = sum(metadata.row_group(0).column(index).total_compressed_size for index in range(5))
    extent = layout.extents[0]
    assert [one.samples for one in layout.extents] == [1000, 1000, 1000]
    assert len(extent.ranges) == 2, "the columns after the gap are neighbours"
    assert extent.length_bytes == whole - skipped
    block = FORMAT.decode(extent_data(source, extent), extent, layout)
    assert list(block.columns) == ["a", "c", "d", "e"]
    assert block.primary == "a"


def test_a_row_is_what_was_written():
    spec, data = encode(FORMAT, (1,), samples=6, columns=_COLUMNS, row_group_size=4)
    values = split_rows(_rows(spec), parse_columns(_COLUMNS))
    second = decode(FORMAT, data, told(spec))[1]
    row = second.row(1)
    assert row["c"].tolist() == values["c"][5].tolist()
    assert row["a"].tobytes() == values["a"][5].tobytes()


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_every_compression_is_applied(compression):
    spec, data = encode(FORMAT, (50,), samples=20, compression=compression)
    wanted = {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    assert pq.read_metadata(io.BytesIO(data)).row_group(0).column(0).compression == wanted
    assert np.array_equal(decode(FORMAT, data, told(spec))[0].columns["data"], _rows(spec))


def test_files_of_arrow_are_read_with_every_kind_of_column():
    columns = {
        "number": pa.array(range(10), pa.int32()),
        "half": pa.array(np.arange(10, dtype=np.float16)),
        "yes": pa.array([True, False] * 5),
        "word": pa.array([f"word {n}" for n in range(10)]),
        "ragged": pa.array([list(range(n)) for n in range(10)], pa.list_(pa.int64())),
        "even": pa.array([[n, n] for n in range(10)], pa.large_list(pa.float64())),
        "fixed": pa.array([[n, n, n] for n in range(10)], pa.list_(pa.uint16(), 3)),
        "blob": pa.array([b"ab"] * 10, pa.large_binary()),
        "id": pa.array([b"1234"] * 10, pa.binary(4)),
        "when": pa.array(range(10), pa.timestamp("us")),
    }
    blocks = decode(FORMAT, _parquet(columns, row_group_size=4, compression="zstd"))
    assert [block.samples for block in blocks] == [4, 4, 2]
    last = blocks[2]
    assert last.primary == "number"
    assert last.columns["number"].tolist() == [8, 9]
    assert last.columns["half"].tolist() == [8.0, 9.0]
    assert last.columns["yes"].tolist() == [True, False]
    assert last.columns["word"].tobytes() == b"word 8word 9"
    assert [row.tolist() for row in last.columns["ragged"]] == [list(range(8)), list(range(9))]
    assert last.columns["even"].tolist() == [[8.0, 8.0], [9.0, 9.0]]
    assert last.columns["fixed"].tolist() == [[8, 8, 8], [9, 9, 9]]
    assert last.columns["blob"].shape == (2, 2)
    assert last.columns["id"].tobytes() == b"12341234"
    assert last.columns["when"].dtype == np.dtype("datetime64[us]")


def test_a_chosen_column_of_a_foreign_file_is_read():
    data = _parquet({"x": pa.array(range(5)), "y": pa.array([1.5] * 5)})
    block = decode(FORMAT, data, {"columns": [{"name": "y", "dtype": "float64"}]})[0]
    assert list(block.columns) == ["y"]


def test_empty_row_groups_and_empty_files_have_no_extents():
    assert decode(FORMAT, _parquet({"x": pa.array([], pa.int32())})) == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": pa.array([1, None, 3])}, "nulls"),
        ({"x": pa.array([[1], None, [3]], pa.list_(pa.int8()))}, "nulls"),
        ({"x": pa.array([[1], [None], [3]], pa.list_(pa.int8()))}, "nulls"),
        ({"x": pa.array([{"a": 1}])}, "cannot show"),
        ({"x": pa.array([1, 2], pa.decimal128(5))}, "cannot show"),
    ],
)
def test_columns_that_arrays_cannot_show_are_refused(columns, words):
    with pytest.raises(CorruptError, match=words):
        decode(FORMAT, _parquet(columns))


def test_a_missing_column_is_told():
    with pytest.raises(CorruptError, match="missing"):
        decode(FORMAT, _parquet({"x": pa.array([1])}), {"columns": [{"name": "z", "dtype": "int64"}]})


@pytest.mark.parametrize(
    "columns",
    [
        "a",
        [{"name": "a"}],
        [{"name": "a", "dtype": "int7"}],
        [{"name": "a", "dtype": "int8", "size": 0}],
        [{"name": "a", "dtype": "int8", "sise": 2}],
        [{"name": "a", "dtype": "int8"}, {"name": "a", "dtype": "int8"}],
        [{"name": "a.b", "dtype": "int8"}],
        [{"name": "a", "dtype": "int8", "read": False}],
        [{"name": "a", "dtype": "int8", "size": "2"}],
    ],
)
def test_malformed_columns_are_refused(columns):
    with pytest.raises(UsageError, match="column"):
        FORMAT.check_spec(SampleSpec((1,), options={"columns": columns}))


@pytest.mark.parametrize("options", [{"row_group_size": 0}, {"row_group_size": 1.5}, {"row_group_sise": 4}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError, match="row_group_si"):
        FORMAT.check_spec(SampleSpec((1,), options=options))


def test_a_shape_that_is_not_the_columns_row_is_refused():
    spec, data = encode(FORMAT, (1,), samples=2, columns=_COLUMNS)
    with pytest.raises(UsageError, match="decide"):
        FORMAT.layout(MemorySource(data), {**spec.options, "shape": (3, 3)})


def test_told_facts_are_held_against_the_file():
    spec, data = encode(FORMAT, (4, 5), "int16", 7)
    for options in ({"samples": 6}, {"shape": (4, 6)}):
        with pytest.raises(CorruptError):
            decode(FORMAT, data, options)
    block = decode(FORMAT, data, told(spec))[0]
    assert np.array_equal(block.sample(3), content(spec, 3))


def test_a_layout_of_another_maker_is_refused():
    _, data = encode(FORMAT, (4,))
    layout = whole_file_layout(len(data), 1)
    with pytest.raises(UsageError, match="layout"):
        FORMAT.decode(memoryview(data), layout.extents[0], layout)


def test_page_checksums_are_compared_when_asked():
    values = np.random.default_rng(1).integers(0, 2**60, 500)
    data = _parquet({"x": pa.array(values)}, write_page_checksum=True, use_dictionary=False, compression="none")
    at = data.index(values[250].tobytes())
    bad = data[:at] + b"\0\0" + data[at + 2 :]
    assert decode(FORMAT, bad)[0].samples == 500
    with pytest.raises(CorruptError, match=r"(?i)crc|checksum"):
        decode(FORMAT, bad, {"verify": True})
    assert decode(FORMAT, data, {"verify": True})[0].samples == 500


def test_encoding_holds_one_row_group_at_a_time():
    asked = []

    def source(index):
        asked.append(index)
        return np.random.default_rng(index).integers(0, 256, 1 << 20, dtype=np.uint8)

    chunks = FORMAT.encode(SampleSpec((1 << 20,), samples=12, options={"row_group_size": 2}), source)
    next(chunks)
    assert len(asked) <= 4


def test_the_columns_of_dlrm_are_those_of_the_benchmark():
    columns = parse_columns(dlrm_columns())
    assert [column.name for column in columns[:2]] + [columns[-1].name] == ["feature_000", "feature_001", "feature_199"]
    kinds = [column.dtype for column in columns]
    assert {kind: kinds.count(kind) for kind in kinds} == {"float16": 50, "float32": 56, "float64": 49, "int8": 45}
    assert sum(column.row_bytes for column in columns) == 761
    read = [column for column in columns if column.read]
    kinds = [column.dtype for column in read]
    assert {kind: kinds.count(kind) for kind in kinds} == {"float32": 27, "float64": 5, "float16": 4, "int8": 4}
    assert sum(column.row_bytes for column in read) == 160


def test_a_dlrm_file_is_written_and_read():
    made = FORMAT.check_spec(
        SampleSpec((27, 27), samples=600, options={"columns": dlrm_columns(), "row_group_size": 256})
    )
    assert made.shape == (761,)
    data = b"".join(bytes(chunk) for chunk in FORMAT.encode(made, partial(content, made)))
    blocks = decode(FORMAT, data, told(made))
    assert [block.samples for block in blocks] == [256, 256, 88]
    wanted = split_rows(_rows(made), parse_columns(dlrm_columns()))
    assert len(blocks[0].columns) == 40
    for name, values in blocks[1].columns.items():
        assert values.tobytes() == wanted[name][256:512].tobytes()


def test_the_columns_of_flux_are_those_of_the_benchmark():
    columns = parse_columns(flux_columns())
    assert sum(column.size for column in columns) == 541_208
    assert sum(column.row_bytes for column in columns) == 2_164_832
    spec, data = encode(FORMAT, (1,), columns=flux_columns())
    block = decode(FORMAT, data, told(spec))[0]
    assert block.columns["mean"].shape == (1, 8232)
    assert block.primary == "t5_encodings"


# Lying footers. The thrift field headers below are those our writer leaves: a number is a zigzag varint.


def _footer_span(data):
    length = struct.unpack("<I", data[-8:-4])[0]
    return len(data) - 8 - length, len(data) - 8


def _with_footer(data, change):
    start, end = _footer_span(data)
    footer = change(data[start:end])
    return data[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def test_footer_lengths_that_cannot_be_are_corrupt():
    _, data = encode(FORMAT, (4,), samples=3)
    for length in (0, len(data), len(data) - 8, 0xFFFFFFFF):
        with pytest.raises(CorruptError):
            decode(FORMAT, data[:-8] + struct.pack("<I", length) + b"PAR1")
    with pytest.raises(CorruptError, match="cut off"):
        decode(FORMAT, data[:-4] + b"PARE")


def test_every_byte_of_a_footer_may_be_wrong_without_harm():
    _, data = encode(FORMAT, (4,), samples=3)
    start, end = _footer_span(data)
    for at in range(start, end):
        for value in (0x00, 0x7F, 0xFF):
            try:
                blocks = decode(FORMAT, data[:at] + bytes([value]) + data[at + 1 :])
            except CorruptError:
                continue
            assert all(len(values) == block.samples for block in blocks for values in block.columns.values())


def test_a_footer_that_promises_absurdly_many_rows_is_corrupt():
    _, data = encode(FORMAT, (4,), samples=3)
    # 3 rows, zigzag 6: the file's count and the row group's, made 2^40 each.
    huge = b"\x80" * 5 + b"\x40"

    def change(footer):
        return footer.replace(b"\x16\x06", b"\x16" + huge)

    with pytest.raises(CorruptError, match=r"absurd|two numbers"):
        decode(FORMAT, _with_footer(data, change))


def test_a_column_said_to_lie_in_the_footer_or_before_the_file_is_corrupt():
    _, data = encode(FORMAT, (4,), samples=3)
    source = MemorySource(data)
    _, length = FORMAT.layout(source, {}).extents[0].ranges[0]

    def moved(footer):
        return footer.replace(_zigzag(length), _zigzag(length + 4096))

    with pytest.raises(CorruptError, match="cannot"):
        decode(FORMAT, _with_footer(data, moved))


def _zigzag(value):
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_pages_that_point_out_of_their_column_are_corrupt():
    """Decoding sees the bytes of the wanted columns alone; asking for others is an error, not a read."""
    spec, data = encode(FORMAT, (1,), samples=50, columns=_COLUMNS)
    source = MemorySource(data)
    layout = FORMAT.layout(source, told(spec))
    extent = layout.extents[0]
    start, length = extent.ranges[0]
    short = Extent(((start, length - 20), *extent.ranges[1:]), 0, extent.samples)
    with pytest.raises(CorruptError):
        FORMAT.decode(extent_data(source, short), short, layout)
