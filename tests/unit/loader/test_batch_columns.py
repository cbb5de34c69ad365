"""Batches of many short rows: columns as arrays, samples taken apart when asked for, stacking without a loop."""

import numpy as np
import pytest
from loader_datasets import build, is_sample

from stoker.core.errors import UsageError
from stoker.formats.parquet_columns import parse_columns, split_rows
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store

_COLUMNS = [
    {"name": "a", "dtype": "int16"},
    {"name": "left_out", "dtype": "float64", "read": False},
    {"name": "b", "dtype": "uint8", "size": 3},
    {"name": "word", "dtype": "string", "size": 2},
]
_ROW_BYTES = 15


def _rows(total: int) -> dict[str, np.ndarray]:
    """Return what every column holds, by sample number."""
    rows = np.stack([np.full(_ROW_BYTES, number % 251, np.uint8) for number in range(total)])
    numbers = np.arange(total)
    rows[:, 0], rows[:, 1] = numbers >> 8, numbers & 255
    return split_rows(rows, parse_columns(_COLUMNS))


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
@pytest.mark.parametrize("row_group", [1, 7, 100])
def test_a_column_comes_as_one_array_in_the_order_of_the_batch(memory: Store, order: str, row_group: int) -> None:
    options = {"columns": _COLUMNS, "row_group_size": row_group}
    manifest = build(memory, "parquet", [170, 170, 60], (_ROW_BYTES,), options)
    wanted = _rows(400)
    with Loader(memory, manifest, LoaderOptions(batch_size=100, order=order)) as loader:
        for batch in loader.epoch(1):
            assert batch.payload_bytes == 100 * (2 + 3 + 2)
            for name in ("a", "b", "word"):
                array = batch.array(name)
                assert array.dtype == wanted[name].dtype
                assert np.array_equal(array, wanted[name][batch.sample_ids])
                assert [value.tolist() for value in batch.column(name)] == array.tolist()
            assert [int(sample) for sample in batch.samples] == batch.array("a").tolist()
        assert loader.order_digest() == loader.expected_digest()


@pytest.mark.parametrize("order", ["shuffled", "sequential"])
def test_rows_are_stacked_in_the_order_of_the_batch(memory: Store, order: str) -> None:
    manifest = build(memory, "parquet", [300, 100], (24,), {"row_group_size": 130})
    options = LoaderOptions(batch_size=200, order=order, collate="stack")
    with Loader(memory, manifest, options) as loader:
        for batch in loader.epoch(1):
            assert isinstance(batch.samples, np.ndarray)
            assert batch.samples.shape == (200, 24)
            assert all(
                is_sample(sample, number) for sample, number in zip(batch.samples, batch.sample_ids, strict=True)
            )


def test_samples_of_many_rows_are_taken_apart_once_when_asked_for(memory: Store) -> None:
    manifest = build(memory, "parquet", [200], (24,))
    with Loader(memory, manifest, LoaderOptions(batch_size=100)) as loader:
        batches = list(loader.epoch(1))
    for batch in batches:
        samples = batch.samples
        assert isinstance(samples, list)
        assert batch.samples is samples
        assert all(is_sample(sample, number) for sample, number in zip(samples, batch.sample_ids, strict=True))


def test_columns_that_are_not_there_or_not_alike_are_refused(memory: Store) -> None:
    manifest = build(memory, "npz", [1, 1], shapes=[(8, 8), (4, 4)])
    with Loader(memory, manifest, LoaderOptions(batch_size=2)) as loader:
        (batch,) = loader.epoch(1)
    assert batch.array("y").shape[0] == 2
    with pytest.raises(UsageError, match="cannot be stacked"):
        batch.array("x")
    with pytest.raises(UsageError, match="no such column"):
        batch.array("z")
    manifest = build(memory, "npz", [1, 1])
    with Loader(memory, manifest, LoaderOptions(batch_size=2, collate="stack")) as loader:
        (batch,) = loader.epoch(1)
    with pytest.raises(UsageError, match="collate=views"):
        batch.array("x")
