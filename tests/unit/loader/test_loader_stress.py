"""Random shapes, bounds and threads, over a store that answers in its own time: nothing locks up, nothing is lost."""

import time
from typing import Any

import numpy as np
import pytest
from loader_datasets import build, is_sample

from stoker.core.seed import derive
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Reader, Store
from stoker.storage.layers.layer import Layer, ReaderLayer


class Moody(Layer):
    """Opens after up to two milliseconds, drawn from the key and the offset."""

    def _run(self, operation: str, key: str, action: Any) -> Any:
        return action()

    def open_read(self, key: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Reader:
        time.sleep(derive(1, key, offset_bytes) % 3 / 1000)
        return ReaderLayer(self.inner.open_read(key, offset_bytes=offset_bytes, length_bytes=length_bytes))


@pytest.mark.parametrize("seed", range(16))
def test_any_combination_delivers_every_sample_once(memory: Store, seed: int) -> None:
    chance = np.random.default_rng(derive(seed, "combination"))
    name = str(chance.choice(["npz", "raw", "tfrecord", "parquet"]))
    files = chance.integers(1, int(chance.choice([2, 12])), int(chance.integers(3, 14))).tolist()
    options = LoaderOptions(
        batch_size=int(chance.integers(1, 9)),
        read_threads=int(chance.integers(1, 6)),
        decode_threads=int(chance.integers(0, 4)),
        prefetch_batches=int(chance.integers(0, 5)),
        order=str(chance.choice(["shuffled", "shuffled", "sequential", "dlio"])),
        seed=seed,
        collate=str(chance.choice(["views", "stack"])),
        verify=float(chance.choice([0.0, 0.5, 1.0])),
        in_flight_bytes_max=int(chance.choice([0, 1, 3000])),
    )
    manifest = build(
        memory, name, [int(count) for count in files], (48,), {"row_group_size": 3} if name == "parquet" else {}
    )
    world_size = int(chance.integers(1, 3))
    if sum(files) < options.batch_size * world_size:
        world_size, options = 1, LoaderOptions(batch_size=1, read_threads=options.read_threads)
    joint, samples, expected = 0, 0, (0, 0)
    for rank in range(world_size):
        with Loader(Moody(memory), manifest, options, rank=rank, world_size=world_size) as loader:
            for epoch in (1, 2):
                for batch in loader.epoch(epoch):
                    samples += len(batch) if epoch == 2 else 0
                    assert all(
                        is_sample(array, int(number))
                        for array, number in zip(batch.samples, batch.sample_ids, strict=True)
                    )
            joint ^= loader.order_digest()
            expected = loader.expected_digest(), loader.usable_samples
            assert loader.ledger.delivered_bytes == loader.ledger.wanted_bytes
    assert (joint, samples) == expected
