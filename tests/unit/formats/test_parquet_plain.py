"""Plain numbers of Parquet files are read without Arrow, and show as Arrow shows them; the rest is left to it."""

import io
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import content, decode, encode, told
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import CorruptError
from stoker.formats.api import SampleSpec
from stoker.formats.parquet import FORMAT
from stoker.formats.parquet_columns import to_numpy
from stoker.formats.parquet_plain import plain_columns
from stoker.formats.parquet_schemas import dlrm_columns, flux_columns
from stoker.formats.ranges import MemorySource
from stoker.kernels import page_unpacking
from stoker.testing.format_contract import extent_data


@pytest.fixture(params=["native", "plain"])
def kernels(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(page_unpacking, "native_kernels", lambda: None)


def _written(columns, **options):
    out = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, out, **({"compression": "none"} | options))
    return out.getvalue()


def _without_arrow(data, options=None):
    """Return, for each row group, the columns that are read without Arrow."""
    lend = partial(np.empty, dtype=np.uint8)
    source = MemorySource(data)
    layout = FORMAT.layout(source, options or {})
    found = []
    for extent in layout.extents:
        plain = layout.context.plain.get(extent.first_sample)
        view = np.frombuffer(extent_data(source, extent), np.uint8)
        found.append({} if plain is None else plain_columns(view, plain, extent.samples, layout.context.leaves, lend))
    return found


def _columns(rows):
    numbers = np.arange(rows)
    return {
        "int8": pa.array((numbers % 100).astype(np.int8)),
        "uint16": pa.array((numbers * 7 % 60_000).astype(np.uint16)),
        "int32": pa.array(numbers.astype(np.int32) - 5),
        "uint32": pa.array(numbers.astype(np.uint32) + 2**31),
        "int64": pa.array(numbers - 2**40),
        "uint64": pa.array(numbers.astype(np.uint64) + 2**63),
        "float16": pa.array(numbers.astype(np.float16)),
        "float32": pa.array(numbers.astype(np.float32) / 3),
        "float64": pa.array(numbers / 7),
        "id": pa.array([b"%05d" % number for number in range(rows)], pa.binary(5)),
        "fixed": pa.array(list(np.arange(3 * rows, dtype=np.int16).reshape(rows, 3)), pa.list_(pa.int16(), 3)),
        "even": pa.array([[number, 1.5] for number in range(rows)], pa.large_list(pa.float64())),
    }


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dictionary", [False, True])
def test_every_kind_of_number_is_read_without_arrow_as_arrow_reads_it(dictionary):
    table = pa.table(_columns(130))
    data = _written(table, use_dictionary=dictionary, row_group_size=50)
    groups = _without_arrow(data)
    assert [list(group) for group in groups] == [table.schema.names] * 3
    for number, (group, block) in enumerate(zip(groups, decode(FORMAT, data), strict=True)):
        part = table.slice(50 * number, 50).combine_chunks()
        for name, values in group.items():
            wanted = to_numpy(part.column(name), name)
            assert values.dtype == wanted.dtype
            assert values.shape == wanted.shape
            assert values.tobytes() == wanted.tobytes() == block.columns[name].tobytes()
            assert values.flags.aligned
        assert block.copied_bytes == sum(values.nbytes for values in block.columns.values())


@settings(deadline=None)
@given(
    names=st.lists(st.sampled_from(list(_columns(1))), min_size=1, unique=True),
    rows=st.integers(1, 300),
    row_group=st.integers(1, 120),
    page_bytes=st.sampled_from([40, 500, 1 << 20]),
    writing=st.sampled_from([{}, {"compression": "zstd"}, {"data_page_version": "2.0"}, {"use_dictionary": False}]),
)
def test_however_it_was_written_the_values_are_those_of_arrow(names, rows, row_group, page_bytes, writing):
    table = pa.table({name: _columns(rows)[name] for name in names})
    data = _written(table, row_group_size=row_group, data_page_size=page_bytes, write_batch_size=8, **writing)
    for number, block in enumerate(decode(FORMAT, data)):
        part = table.slice(row_group * number, row_group).combine_chunks()
        for name in names:
            wanted = to_numpy(part.column(name), name)
            assert (block.columns[name].dtype, block.columns[name].shape) == (wanted.dtype, wanted.shape)
            assert block.columns[name].tobytes() == wanted.tobytes()


@pytest.mark.usefixtures("kernels")
def test_the_columns_of_the_workloads_are_read_without_arrow():
    made = FORMAT.check_spec(
        SampleSpec((761,), samples=600, options={"columns": dlrm_columns(), "row_group_size": 256})
    )
    data = b"".join(bytes(chunk) for chunk in FORMAT.encode(made, partial(content, made)))
    assert [len(group) for group in _without_arrow(data, told(made))] == [40, 40, 40]
    spec, data = encode(FORMAT, (1,), columns=flux_columns())
    assert [len(group) for group in _without_arrow(data, told(spec))] == [5]


def test_what_is_not_plain_is_left_to_arrow():
    rows = 20
    columns = {
        "yes": pa.array([True, False] * (rows // 2)),
        "word": pa.array(["word"] * rows),
        "ragged": pa.array([list(range(number)) for number in range(rows)], pa.list_(pa.int64())),
        "when": pa.array(range(rows), pa.timestamp("us")),
    }
    assert _without_arrow(_written(columns)) == [{}]
    numbers = _columns(rows)
    assert _without_arrow(_written(numbers, compression="snappy")) == [{}]
    assert _without_arrow(_written(numbers), {"verify": True}) == [{}]
    assert list(_without_arrow(_written({"yes": columns["yes"], "int8": numbers["int8"]}))[0]) == ["int8"]


def test_lists_whose_lengths_only_add_up_are_left_to_arrow():
    data = _written({"x": pa.array([[1], [2, 3, 4], [5, 6]], pa.list_(pa.int32()))})
    assert _without_arrow(data) == [{}]
    assert [row.tolist() for row in decode(FORMAT, data)[0].columns["x"]] == [[1], [2, 3, 4], [5, 6]]


def test_every_byte_of_a_column_may_be_wrong_without_harm():
    data = _written(
        {"a": pa.array(np.arange(6, dtype=np.int8)), "b": pa.array([[1.5, 2.5]] * 6, pa.list_(pa.float32(), 2))}
    )
    footer = int.from_bytes(data[-8:-4], "little")
    for at in range(4, len(data) - 8 - footer):
        for value in (0x00, 0x15, 0x7F, 0xFF):
            try:
                (block,) = decode(FORMAT, data[:at] + bytes([value]) + data[at + 1 :])
            except CorruptError:
                continue
            assert all(len(values) == 6 for values in block.columns.values())
