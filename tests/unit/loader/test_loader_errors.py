"""What is wrong with the data is told once, at the batch it spoils, with the file and the range."""

import threading
from typing import Any

import numpy as np
import pytest
from loader_datasets import build

from stoker.core.errors import CorruptError, NotFoundError, ShortReadError, StokerError, TransientError
from stoker.formats.api import FORMATS
from stoker.loader.loader import Loader
from stoker.loader.manifest import Manifest
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store
from stoker.storage.layers.faulty import Faults, FaultyStore
from stoker.storage.opening import open_store


def run_until_error(store: Store, manifest: Manifest, **options: Any) -> tuple[int, StokerError]:
    """Return how many batches came before the error, and the error; check that it comes once and ends all."""
    with Loader(store, manifest, LoaderOptions(**{"batch_size": 2, "order": "dlio", **options})) as loader:
        steps = loader.epoch(1)
        good = 0
        with pytest.raises(StokerError) as caught:
            for _ in steps:
                good += 1
        assert list(steps) == []
        assert loader.ledger.errors >= 1
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("stoker-")]
    return good, caught.value


@pytest.mark.parametrize("decode_threads", [0, 2])
@pytest.mark.parametrize("name", ["npz", "raw", "tfrecord"])
def test_a_file_that_shrank_is_never_data(memory: Store, name: str, decode_threads: int) -> None:
    manifest = build(memory, name, [1] * 8)
    key = manifest.keys[5]
    memory.put(key, bytes(memory.get_range(key))[:-1])
    good, error = run_until_error(memory, manifest, decode_threads=decode_threads)
    assert good == 2
    assert isinstance(error, ShortReadError)
    size = int(manifest.sizes_bytes[5])
    assert f"{key} [0, {size})" in str(error)
    assert str(size - 1) in str(error)


def test_a_file_that_grew_is_named_with_both_sizes(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 4)
    key = manifest.keys[0]
    memory.put(key, bytes(memory.get_range(key)) + b"more")
    good, error = run_until_error(memory, manifest)
    size = int(manifest.sizes_bytes[0])
    assert good == 0
    assert isinstance(error, CorruptError)
    assert f"expected {size} bytes, got {size + 4} bytes" in str(error)
    assert key in str(error)


def test_a_missing_file_keeps_its_kind_of_error(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8)
    memory.delete(manifest.keys[3])
    good, error = run_until_error(memory, manifest)
    assert good == 1
    assert isinstance(error, NotFoundError)
    assert manifest.keys[3] in str(error)


def test_undecodable_bytes_name_their_file(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 4)
    key = manifest.keys[2]
    memory.put(key, bytes(int(manifest.sizes_bytes[2])))
    good, error = run_until_error(memory, manifest)
    assert good == 1
    assert isinstance(error, CorruptError)
    assert key in str(error)


@pytest.mark.parametrize(("name", "samples"), [("npz", [1] * 4), ("npz", [3] * 4), ("raw", [3] * 4)])
def test_one_flipped_bit_fails_the_checksum(memory: Store, name: str, samples: list[int]) -> None:
    manifest = build(memory, name, samples)
    key = manifest.keys[1]
    data = bytearray(memory.get_range(key))
    data[len(data) // 2] ^= 1
    memory.put(key, data)
    with Loader(memory, manifest, LoaderOptions(batch_size=2)) as unaware:
        list(unaware.epoch(1))  # npz does not compare its own checksums unless asked
    _, error = run_until_error(memory, manifest, verify=1.0)
    assert isinstance(error, CorruptError)
    assert key in str(error)
    assert f"{int(manifest.checksums[1]):016x}" in str(error)


def test_about_the_asked_share_of_files_is_verified(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 200, (2,))
    manifest.checksums = manifest.checksums + np.uint64(0)
    counts = []
    with Loader(memory, manifest, LoaderOptions(batch_size=10, verify=0.25)) as loader:
        for epoch in (1, 2):
            list(loader.epoch(epoch))
            counts.append(loader.histograms["verify"].count)
    assert 30 <= counts[0] <= 70
    assert 30 <= counts[1] - counts[0] <= 70


def test_partly_read_files_are_verified_whole_by_one_rank(memory: Store) -> None:
    manifest = build(memory, "tfrecord", [6] * 8)
    requested = 0
    for rank in range(3):
        options = LoaderOptions(batch_size=4, verify=1.0, join_bytes=0)
        with Loader(memory, manifest, options, rank=rank, world_size=3) as loader:
            requested += sum(batch.requested_bytes for batch in loader.epoch(1))
    assert requested == 2 * manifest.total_bytes


def test_the_stores_own_failures_come_through(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8)
    _, error = run_until_error(FaultyStore(memory, Faults(fail_ratio=1.0)), manifest)
    assert isinstance(error, TransientError)
    assert "train/f00" in str(error)


def test_retried_failures_are_counted_and_lose_nothing(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 8)
    faulty = open_store(f"{memory.url}?fail_ratio=0.2&retry_attempts=9")
    with Loader(faulty, manifest, LoaderOptions(batch_size=2)) as loader:
        list(loader.epoch(1))
        assert loader.order_digest() == loader.expected_digest()
        assert loader.ledger.retries > 0


def test_a_manifest_that_counts_otherwise_than_the_file_is_refused(memory: Store) -> None:
    manifest = build(memory, "tfrecord", [4, 4])
    manifest.samples = np.array([4, 3])
    with pytest.raises(CorruptError, match=r"samples|records"):
        list(Loader(memory, manifest, LoaderOptions(batch_size=1)).epoch(1))


def test_a_strange_exception_of_a_plug_in_names_the_file(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = build(memory, "npz", [1] * 4)

    class Broken:
        name, extension, multi_sample, whole_file, primary = "npz", "npz", True, True, "x"

        def decode(self, data: memoryview, extent: object, layout: object) -> object:
            raise ZeroDivisionError("not today")

    monkeypatch.setattr(FORMATS, "load", lambda name: Broken())
    good, error = run_until_error(memory, manifest)
    assert good == 0
    assert "ZeroDivisionError" in str(error)
    assert manifest.keys[0] in str(error) or manifest.keys[1] in str(error)
    assert "not today" in str(error)
