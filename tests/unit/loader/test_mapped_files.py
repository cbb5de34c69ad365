"""Cached files are lent instead of copied: the same samples, nobody harmed when a file shrinks."""

import gc
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.unit.loader.loader_datasets import build, is_sample

from stoker.core.errors import ShortReadError
from stoker.kernels.mapping import PlainMappingWatch, mapping_watch, mappings_held
from stoker.kernels.native import native_kernels
from stoker.loader.loader import Loader
from stoker.loader.manifest import Manifest
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store
from stoker.storage.opening import open_store

SIDE = 1000
BYTES = SIDE * SIDE

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="mapping is done by the native kernels alone")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(f"file://{tmp_path}?fsync=none")) as opened:
        yield opened


def options(**changed: object) -> LoaderOptions:
    return LoaderOptions(**{"batch_size": 2, "read_threads": 1, "map_bytes": 1 << 18, **changed})  # type: ignore[arg-type]


def delivered(loader: Loader) -> dict[int, np.ndarray]:
    return {
        int(number): sample
        for batch in loader.epoch(loader.next_epoch)
        for number, sample in zip(batch.sample_ids, batch.samples, strict=True)
    }


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", ["npz", "npy", "raw", "indexed_binary", "tfrecord", "hdf5"])
def test_what_is_lent_is_what_is_copied(store: Store, name: str, samples: int) -> None:
    manifest = build(store, name, [1 if name == "npy" else samples] * 4, (SIDE, SIDE))
    with Loader(store, manifest, options()) as lending, Loader(store, manifest, options(map_bytes=0)) as copying:
        lent, copied = delivered(lending), delivered(copying)
    assert lent.keys() == copied.keys() == set(range(manifest.total_samples))
    for number, sample in lent.items():
        assert is_sample(sample, number) and np.array_equal(sample, copied[number])
    assert copying.ledger.mapped_bytes == 0
    ledger = lending.ledger
    # Parts of files that begin where no array should are copied.
    assert ledger.mapped_bytes > (0.9 * manifest.total_bytes if name in ("npz", "npy") else 0) or name == "hdf5"
    assert ledger.mapped_bytes <= ledger.from_cache_bytes <= ledger.requested_bytes
    assert ledger.requested_bytes == copying.ledger.requested_bytes


def test_the_memory_goes_with_the_last_view(store: Store) -> None:
    manifest = build(store, "npz", [1] * 4, (SIDE, SIDE))
    before = mappings_held()
    with Loader(store, manifest, options()) as loader:
        kept = next(batch.samples[0] for batch in loader.epoch(1))
    gc.collect()
    assert mappings_held() == before + 1
    assert kept.flags.writeable and kept.size == BYTES
    del kept
    gc.collect()
    assert mappings_held() == before


def test_writing_into_a_sample_leaves_the_file_as_it_is(store: Store) -> None:
    manifest = build(store, "npz", [1, 1], (SIDE, SIDE))
    with Loader(store, manifest, options()) as loader:
        for sample in delivered(loader).values():
            sample[:] = 255
        again = delivered(loader)
    assert loader.ledger.mapped_bytes > 0
    assert all(is_sample(sample, number) for number, sample in again.items())


def test_only_what_lies_in_the_cache_is_lent(tmp_path: Path, store: Store) -> None:
    manifest = build(store, "npz", [1, 1, 1, 1], (SIDE, SIDE))
    with closing(open_store(f"file://{tmp_path}")) as evicting:
        evicting.evict(manifest.keys[2])  # type: ignore[attr-defined]
        cached = evicting.cached_bytes(manifest.keys[2])  # type: ignore[attr-defined]
    if cached:
        pytest.skip("this file system keeps its files in memory")
    with Loader(store, manifest, options()) as loader:
        found = delivered(loader)
    assert all(is_sample(sample, number) for number, sample in found.items())
    assert loader.ledger.mapped_bytes == int(manifest.sizes_bytes.sum() - manifest.sizes_bytes[2])


def test_small_reads_and_reads_past_the_cache_are_copied(tmp_path: Path, store: Store) -> None:
    manifest = build(store, "npz", [1, 1], (SIDE, SIDE))
    with Loader(store, manifest, options(map_bytes=2 * BYTES)) as loader:
        delivered(loader)
    assert loader.ledger.mapped_bytes == 0
    with closing(open_store(f"direct://{tmp_path}?fallback=buffered")) as direct:
        if direct.capabilities.io_mode != "direct":
            pytest.skip("no O_DIRECT here")
        with Loader(direct, manifest, options()) as loader:
            delivered(loader)
        assert loader.ledger.mapped_bytes == 0


def test_a_file_that_shrinks_meanwhile_ends_the_epoch_with_its_name(tmp_path: Path, store: Store) -> None:
    manifest = build(store, "npz", [1] * 6, (SIDE, SIDE))
    with Loader(store, manifest, options(order="sequential", batch_size=1)) as loader:
        batches = loader.epoch(1)
        next(batches)
        sample = next(batches).samples[0]
        os.truncate(tmp_path / manifest.keys[1], 5000)
        assert sample[0, 5] == 1 and sample[-1, -1] == 0  # zeros instead of the end of this process
        with pytest.raises(ShortReadError, match=r"while its samples were in use 'train/f001.npz'"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_a_wrong_checksum_is_found_in_lent_bytes(tmp_path: Path, store: Store) -> None:
    manifest = build(store, "npz", [1, 1], (SIDE, SIDE))
    path = tmp_path / manifest.keys[1]
    data = bytearray(path.read_bytes())
    data[BYTES // 2] ^= 1
    path.write_bytes(data)
    with Loader(store, manifest, options(verify=1.0)) as loader, pytest.raises(Exception, match="checksum"):
        delivered(loader)


def test_a_file_of_another_size_is_told_as_ever(tmp_path: Path, store: Store) -> None:
    manifest: Manifest = build(store, "npz", [1, 1], (SIDE, SIDE))
    with (tmp_path / manifest.keys[1]).open("ab") as file:
        file.write(b"more")
    with Loader(store, manifest, options()) as loader, pytest.raises(Exception, match="not as long as its manifest"):
        delivered(loader)


@pytest.mark.parametrize("span", [(0, 1), (0, 10_000), (1, 9_999), (4096, 100), (8191, 2)])
def test_the_twin_gives_the_same_array(tmp_path: Path, span: tuple[int, int]) -> None:
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(1).bytes(10_000))
    native = mapping_watch()
    assert native is not None
    with path.open("rb") as file:
        found = [watch.map_file(file.fileno(), *span, 7) for watch in (native, PlainMappingWatch())]
        beyond = [watch.map_file(file.fileno(), 9_999, 2, 7) for watch in (native, PlainMappingWatch())]
        nothing = [watch.map_file(file.fileno(), 5, 0, 7) for watch in (native, PlainMappingWatch())]
    for array in found:
        assert array is not None and array.tobytes() == path.read_bytes()[span[0] : sum(span)]
        assert array.flags.writeable and array.ndim == 1
    assert beyond == nothing == [None, None]
    assert native.torn_tag == PlainMappingWatch.torn_tag == -1
