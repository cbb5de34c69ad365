"""Nothing is copied between the device and the consumer's array where the format stores plain samples."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stoker.bench.workloads.source import dataset_manifest
from stoker.core.errors import StokerError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.opening import open_store

COPIES = {
    "npz": 0,
    "npy": 0,
    "raw": 0,
    "indexed_binary": 0,
    "mmap_indexed_binary": 0,
    "tfrecord": 1,
}
"""How often a delivered byte may have been copied."""


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("url", ["file", "direct", "file-plain"])
@pytest.mark.parametrize("name", COPIES)
def test_bytes_are_delivered_where_they_were_read(tmp_path: Path, name: str, url: str, samples: int) -> None:
    spec = DatasetSpec(name, files=12, samples_per_file=samples, record_length_bytes=10_000)
    with closing(open_store(f"file://{tmp_path}?fsync=none")) as store:
        generate(store, spec, GenerateOptions())
    scheme, _, plain = url.partition("-")
    try:
        store = open_store(f"{scheme}://{tmp_path}" + ("?io=plain" if plain else ""))
    except StokerError as error:
        pytest.skip(f"no O_DIRECT here: {error}")
    with closing(store), Loader(store, dataset_manifest(store, spec), LoaderOptions(batch_size=4)) as loader:
        delivered = [sample for batch in loader.epoch(1) for sample in batch.samples]
        ledger = loader.ledger
    assert len(delivered) == 12 * samples
    assert ledger.delivered_bytes == sum(sample.nbytes for sample in delivered) > 0
    assert ledger.copied_bytes <= COPIES[name] * ledger.delivered_bytes
    assert all(_looks_into_a_buffer(sample) for sample in delivered) or COPIES[name]


def _looks_into_a_buffer(sample: np.ndarray) -> bool:
    return not sample.flags.owndata
