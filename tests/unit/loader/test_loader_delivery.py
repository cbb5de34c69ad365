"""What the consumer gets: the real samples, in order, without needless copies, and counted to the byte."""

import gc
import itertools
from pathlib import Path

import numpy as np
import pytest
from loader_datasets import build, is_sample

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import generate
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store
from stoker.storage.opening import open_store

FORMATS = ["npz", "npy", "raw", "indexed_binary", "mmap_indexed_binary", "tfrecord", "hdf5", "csv", "parquet", "png"]


def counts_for(name: str) -> list[int]:
    return [1] * 12 if name == "png" else [4, 4, 4]


@pytest.mark.parametrize("order", ["shuffled", "sequential", "dlio"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_sample_arrives_once_with_its_own_content(memory: Store, name: str, order: str) -> None:
    shape = (8, 8) if name == "png" else (64,)
    manifest = build(memory, name, counts_for(name), shape)
    with Loader(memory, manifest, LoaderOptions(batch_size=5, order=order, verify=1.0)) as loader:
        for epoch in (1, 2):
            seen = []
            for batch in loader.epoch(epoch):
                assert len(batch) == len(batch.samples) == 5
                seen += batch.sample_ids.tolist()
                for sample, number in zip(batch.samples, batch.sample_ids, strict=True):
                    assert is_sample(sample, number)
            assert len(seen) == len(set(seen)) == 10
            assert loader.order_digest() == loader.expected_digest()


def test_batches_do_not_depend_on_threads_or_bounds(memory: Store) -> None:
    manifest = build(memory, "npz", [1, 5, 2, 7, 3, 1, 9])
    orders = []
    for readers, decoders, prefetch, in_flight in [(1, 0, 0, 0), (4, 1, 2, 1), (3, 4, 9, 0)]:
        options = LoaderOptions(
            batch_size=3,
            read_threads=readers,
            decode_threads=decoders,
            prefetch_batches=prefetch,
            in_flight_bytes_max=in_flight,
        )
        with Loader(memory, manifest, options) as loader:
            orders.append([batch.sample_ids.tolist() for batch in loader.epoch(1)])
            assert [batch.step for batch in loader.epoch(2)] == list(range(9))
    assert orders[0] == orders[1] == orders[2]


def test_stored_arrays_are_never_copied_and_stacking_copies_once(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8, (32, 32))
    with Loader(memory, manifest, LoaderOptions(batch_size=4)) as views:
        list(views.epoch(1))
        assert views.ledger.copied_bytes == 0
    with Loader(memory, manifest, LoaderOptions(batch_size=4, collate="stack")) as stacked:
        for batch in stacked.epoch(1):
            assert isinstance(batch.samples, np.ndarray)
            assert batch.samples.shape == (4, 32, 32)
            assert batch.samples.ctypes.data % 4096 == 0
            assert all(is_sample(batch.samples[place], number) for place, number in enumerate(batch.sample_ids))
        assert stacked.ledger.copied_bytes == 8 * 32 * 32


def test_ragged_samples_come_as_a_list_and_refuse_to_be_stacked(memory: Store) -> None:
    manifest = build(memory, "npz", [1, 1], shapes=[(8, 8), (4, 4)])
    with Loader(memory, manifest, LoaderOptions(batch_size=2)) as views:
        (batch,) = views.epoch(1)
        assert {sample.shape for sample in batch.samples} == {(8, 8), (4, 4)}
    with (
        Loader(memory, manifest, LoaderOptions(batch_size=2, collate="stack")) as stacked,
        pytest.raises(UsageError, match=r"cannot be stacked.*collate=views"),
    ):
        list(stacked.epoch(1))


def test_the_ledger_counts_every_byte(memory: Store) -> None:
    manifest = build(memory, "npz", [2, 2, 2, 2])
    with Loader(memory, manifest, LoaderOptions(batch_size=4)) as loader:
        batches = list(loader.epoch(1))
        ledger = loader.ledger
    assert ledger.requested_bytes == manifest.total_bytes == sum(batch.requested_bytes for batch in batches)
    assert ledger.from_store_bytes + ledger.from_cache_bytes == ledger.requested_bytes
    assert ledger.wanted_bytes == ledger.delivered_bytes == 8 * 64 == sum(batch.payload_bytes for batch in batches)
    assert ledger.samples_delivered == 8
    assert ledger.files_opened == 4
    assert ledger.errors == ledger.retries == 0


def test_bytes_from_the_page_cache_are_told_apart(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    manifest = build(store, "npz", [1] * 4, (256, 256))
    with Loader(store, manifest, LoaderOptions(batch_size=4)) as loader:
        list(loader.epoch(1))
        first = loader.ledger
        list(loader.epoch(2))
        second = loader.ledger
    known = first.from_cache_bytes > 0
    assert second.requested_bytes == 2 * manifest.total_bytes
    if known:  # where the kernel tells: what was just written or read is in the cache
        assert second.from_cache_bytes - first.from_cache_bytes == manifest.total_bytes


def test_a_kept_batch_is_never_overwritten(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 24, (512, 512))
    with Loader(memory, manifest, LoaderOptions(batch_size=2, prefetch_batches=3)) as loader:
        kept = [(batch.sample_ids, batch.samples[1]) for batch in loader.epoch(1)]
        list(loader.epoch(2))
        for ids, sample in kept:
            assert is_sample(sample, ids[1])
        part = kept[3][1][7:9, 3]
        number = int(kept[3][0][1])
        del kept, ids, sample
        gc.collect()
        list(loader.epoch(3))
    assert (part == number % 251).all()


def test_buffers_are_used_again_once_nobody_looks(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 16, (512, 512))
    addresses = set()
    with Loader(memory, manifest, LoaderOptions(batch_size=1, prefetch_batches=0, read_threads=1)) as loader:
        for batch in loader.epoch(1):
            addresses.add(batch.samples[0].__array_interface__["data"][0])
            del batch
    assert len(addresses) < 8


def test_other_columns_are_at_hand(memory: Store) -> None:
    manifest = build(memory, "npz", [3, 3])
    with Loader(memory, manifest, LoaderOptions(batch_size=2)) as loader:
        for batch in loader.epoch(1):
            assert [int(label) for label in batch.column("y")] == [0, 0]
            with pytest.raises(UsageError, match="no such column"):
                batch.column("z")
    with Loader(memory, manifest, LoaderOptions(batch_size=2, collate="stack")) as loader:
        batch = next(loader.epoch(1))
        with pytest.raises(UsageError, match="collate=views"):
            batch.column("y")


def test_columns_told_in_the_options_all_count_as_payload(memory: Store) -> None:
    columns = [{"name": "dense", "dtype": "float32", "size": 3}, {"name": "label", "dtype": "float32", "size": 1}]
    manifest = build(memory, "parquet", [8, 8], (16,), {"columns": columns, "row_group_size": 4})
    with Loader(memory, manifest, LoaderOptions(batch_size=4)) as loader:
        batches = list(loader.epoch(1))
    assert all(batch.payload_bytes == 4 * 16 for batch in batches)
    assert len(batches[0].column("label")) == 4


def test_generated_datasets_are_read_back_with_sizes_that_vary(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}?fsync=none")
    for name in ("npz", "raw", "tfrecord"):
        spec = DatasetSpec(name, 6, 3, record_length_bytes=900, record_length_stdev_bytes=200, split=name)
        generate(store, spec)
        manifest = open_manifest(store, name)
        with Loader(store, manifest, LoaderOptions(batch_size=4, verify=1.0)) as loader:
            sizes = {sample.nbytes for batch in loader.epoch(1) for sample in batch.samples}
            assert len(sizes) > 1
            assert loader.order_digest() == loader.expected_digest()


def test_a_window_is_read_once_an_epoch(memory: Store) -> None:
    manifest = build(memory, "parquet", [40, 24, 32], (16,), {"row_group_size": 8})
    with Loader(memory, manifest, LoaderOptions(batch_size=6)) as loader:
        before = loader.ledger.requested_bytes
        batches = list(loader.epoch(1))
        # Footers are kept, row groups are read once each.
        assert sum(batch.requested_bytes for batch in batches) < manifest.total_bytes
        assert loader.ledger.requested_bytes - before <= manifest.total_bytes
        assert loader.ledger.files_opened == (40 + 24 + 32) // 8


def test_neighbours_in_a_file_are_read_as_one(memory: Store) -> None:
    manifest = build(memory, "raw", [8, 8])
    with Loader(memory, manifest, LoaderOptions(batch_size=4, order="dlio", join_bytes=0)) as loader:
        list(loader.epoch(1))
        assert loader.ledger.files_opened == 4


@pytest.mark.parametrize("name", ["raw", "tfrecord", "indexed_binary"])
def test_small_neighbours_are_joined_into_larger_reads_and_shuffled_as_one(memory: Store, name: str) -> None:
    manifest = build(memory, name, [10, 7, 10], (32,))
    record_bytes = manifest.total_bytes // 27
    options = LoaderOptions(batch_size=3, join_bytes=4 * record_bytes, capture_order=True)
    with Loader(memory, manifest, options) as loader:
        batches = list(loader.epoch(1))
        order = np.concatenate(loader.captured)
        assert sorted(order.tolist()) == list(range(27))
        assert loader.order_digest() == loader.expected_digest()
        assert loader.ledger.requested_bytes - sum(batch.requested_bytes for batch in batches) >= 0
        assert len(batches) == 9
    windows = [int(sample) // 4 if sample < 10 else 10 + (int(sample) - 10) // 4 for sample in order if sample < 17]
    changes = sum(before != after for before, after in itertools.pairwise(windows))
    assert changes <= 8, "samples of a window stay together"


def test_first_batch_stages_and_times_are_told(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8)
    with Loader(memory, manifest, LoaderOptions(batch_size=2, verify=1.0)) as loader:
        batches = list(loader.epoch(1))
        histograms = loader.histograms
        assert {name: histogram.count for name, histogram in histograms.items()} == {
            "first_batch": 1,
            "open": 8,
            "read": 8,
            "verify": 8,
            "decode": 8,
            "batch": 4,
        }
        waited = sum(batch.ready_ns - batch.request_ns for batch in batches) / 1e9
        assert sum(loader.stall_seconds.values()) == pytest.approx(waited)
        assert set(loader.busy_seconds) == {"open", "read", "verify", "decode", "batch"}
        assert all(left.ready_ns <= right.request_ns for left, right in itertools.pairwise(batches))


def test_requests_past_the_page_cache_count_whole_blocks(tmp_path: Path) -> None:
    try:
        store = open_store(f"direct://{tmp_path}")
    except Exception as error:  # no O_DIRECT on this file system: nothing to count here
        pytest.skip(f"no O_DIRECT in the temporary folder: {error}")
    manifest = build(open_store(f"file://{tmp_path}"), "npz", [1] * 4, (100, 100))
    with Loader(store, manifest, LoaderOptions(batch_size=2)) as loader:
        for batch in loader.epoch(1):
            assert all(
                is_sample(sample, number) for sample, number in zip(batch.samples, batch.sample_ids, strict=True)
            )
        block = store.capabilities.alignment_bytes
        assert loader.ledger.requested_bytes == 4 * (-(-int(manifest.sizes_bytes[0]) // block) * block)
