"""Pages of Parquet columns come apart natively and plainly alike, as Arrow reads them; the rest is left to Arrow."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import UsageError
from stoker.kernels import page_unpacking, plain_page_unpacking
from stoker.kernels.native import native_kernels
from stoker.kernels.page_jobs import (
    JOB_AT,
    JOB_BYTES,
    JOB_COLUMNS,
    JOB_LEVELS,
    JOB_LIST_SIZE,
    JOB_OUT_AT,
    JOB_OUT_WIDTH,
    JOB_VALUES,
    JOB_WIDTH,
)
from stoker.kernels.page_unpacking import unpack_columns
from stoker.kernels.unpack_columns import USUAL

_KINDS = {"int8": 4, "uint8": 4, "int16": 4, "int32": 4, "int64": 8, "float16": 2, "float32": 4, "float64": 8}


def chunk_of(values, kind, *, list_size=0, nullable=False, **options):
    """Return the bytes of a column of `kind` as Arrow writes it, and its job."""
    array = pa.array(values.reshape(-1), getattr(pa, kind)())
    if list_size:
        array = pa.FixedSizeListArray.from_arrays(
            array, type=pa.list_(pa.field("element", array.type, nullable=nullable), list_size)
        )
    schema = pa.schema([pa.field("x", array.type, nullable=nullable)])
    out = io.BytesIO()
    options = {"use_dictionary": False, "compression": "none"} | options
    pq.write_table(pa.Table.from_arrays([array], schema=schema), out, **options)
    metadata = pq.read_metadata(out)
    column = metadata.row_group(0).column(0)
    at = column.dictionary_page_offset or column.data_page_offset
    job = np.zeros((1, JOB_COLUMNS), np.int64)
    job[0, JOB_BYTES], job[0, JOB_VALUES] = column.total_compressed_size, values.size
    job[0, JOB_WIDTH], job[0, JOB_OUT_WIDTH] = _KINDS[kind], np.dtype(kind).itemsize
    job[0, JOB_LIST_SIZE], job[0, JOB_LEVELS] = list_size, metadata.schema.column(0).max_definition_level
    return np.frombuffer(out.getvalue()[at : at + column.total_compressed_size], np.uint8), job


def both(data, jobs):
    """Return what the native kernel and its twin make of jobs; (status, values) each."""
    found = []
    for kernels in (native_kernels(), plain_page_unpacking):
        if kernels is None:
            pytest.skip("the native kernels are not installed")
        out, statuses = (
            np.zeros(int((jobs[:, JOB_VALUES] * jobs[:, JOB_OUT_WIDTH]).sum()), np.uint8),
            np.zeros(1, np.int64),
        )
        kernels.unpack_columns(data, jobs, out, statuses)
        found.append((int(statuses[0]), out.tobytes()))
    return found


_WRITING = st.fixed_dictionaries(
    {
        "list_size": st.sampled_from([0, 0, 1, 2, 7, 300]),
        "nullable": st.booleans(),
        "use_dictionary": st.booleans(),
        "data_page_size": st.sampled_from([64, 1000, 1 << 20]),
        "write_statistics": st.booleans(),
    }
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(list(_KINDS)), st.integers(1, 600), st.sampled_from([1, 2, 3, 200, 300]), _WRITING)
def test_what_arrow_writes_comes_back(kind, rows, distinct, writing):
    numbers = np.random.default_rng(rows).integers(0, distinct, rows * (writing["list_size"] or 1))
    values = (numbers % 100).astype(kind)
    native, plain = both(*chunk_of(values, kind, write_batch_size=64, **writing))
    assert native == plain
    assert native == (USUAL, values.tobytes())


@settings(deadline=None)
@given(st.data())
def test_both_judge_mutilated_chunks_alike(data):
    list_size, dictionary = data.draw(st.sampled_from([(0, False), (0, True), (5, False), (5, True)]))
    values = np.arange(40, dtype=np.int8) % 7
    chunk, job = chunk_of(values, "int8", list_size=list_size, nullable=True, use_dictionary=dictionary)
    bad = chunk.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(bad)))
    cut = job.copy()
    if data.draw(st.booleans()):
        cut[0, JOB_BYTES] = end
    native, plain = both(bad, cut)
    assert native[0] == plain[0]
    assert native[0] != USUAL or native == plain


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": {"x": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_what_is_packed_otherwise_is_left_alone(options):
    data, job = chunk_of(np.arange(50, dtype=np.float32), "float32", **options)
    assert [status for status, _ in both(data, job)] == [0, 0]


def test_nulls_are_left_alone():
    data, job = chunk_of(np.array([1, None, 3], object), "int32", nullable=True)
    assert [status for status, _ in both(data, job)] == [0, 0]


@pytest.mark.parametrize("plain", [False, True])
def test_many_columns_go_each_to_its_place(plain, monkeypatch):
    if plain:
        monkeypatch.setattr(page_unpacking, "native_kernels", lambda: None)
    kinds = ["float32", "int8", "float64"]
    arrays = [np.arange(100).astype(kind) for kind in kinds]
    parts = [chunk_of(array, kind, use_dictionary=kind == "int8") for array, kind in zip(arrays, kinds, strict=True)]
    jobs = np.concatenate([job for _, job in parts])
    jobs[:, JOB_AT] = np.cumsum([0, *(len(data) for data, _ in parts[:-1])])
    jobs[:, JOB_OUT_AT] = [0, 448, 576]
    jobs[2, JOB_VALUES] -= 1
    out = np.zeros(576 + 800, np.uint8)
    statuses = unpack_columns(np.concatenate([data for data, _ in parts]), jobs, out)
    assert statuses.tolist() == [USUAL, USUAL, 0]
    assert out[:400].tobytes() == arrays[0].tobytes()
    assert out[448:548].tobytes() == arrays[1].tobytes()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (JOB_AT, -1),
        (JOB_AT, 1),
        (JOB_BYTES, 1 << 62),
        (JOB_VALUES, 1 << 62),
        (JOB_OUT_AT, 1),
        (JOB_OUT_AT, 1 << 62),
        (JOB_WIDTH, 8),
        (JOB_OUT_WIDTH, 0),
        (JOB_LEVELS, 128),
        (JOB_LIST_SIZE, -1),
    ],
)
def test_jobs_outside_their_buffers_are_refused(column, value, monkeypatch):
    data, job = chunk_of(np.arange(10, dtype=np.int32), "int32")
    job[0, column] = value
    for _ in range(2):  # natively, where that is there, then plainly
        with pytest.raises(UsageError, match="column chunk"):
            unpack_columns(data, job, np.zeros(40, np.uint8))
        with pytest.raises(UsageError, match="column chunk"):
            unpack_columns(data.astype(np.int8), job, np.zeros(40, np.uint8))
        monkeypatch.setattr(page_unpacking, "native_kernels", lambda: None)
