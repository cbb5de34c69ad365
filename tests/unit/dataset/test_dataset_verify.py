"""Damage is found, named, and placed to the byte."""

from collections.abc import Iterator

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import run_id
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import generate
from stoker.loader.dataset.progress import Progress
from stoker.loader.dataset.verify import find_damage, verify
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store
from stoker.storage.opening import open_store

SPEC = DatasetSpec("tfrecord", 12, 3, record_length_bytes=5000, record_length_stdev_bytes=900)


@pytest.fixture
def made() -> Iterator[tuple[Store, Manifest]]:
    store = open_store(f"mem://{run_id()}")
    generate(store, SPEC)
    yield store, open_manifest(store)
    for info in list(store.list()):
        store.delete(info.key)


def change(store: Store, key: str, offset: int) -> None:
    data = bytearray(store.get_range(key))
    data[offset] ^= 0x40
    store.put(key, data)


def test_a_sound_split_is_good(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    seen: list[Progress] = []
    report = verify(store, manifest, progress=seen.append)
    assert report.good
    assert (report.files_checked, report.bytes_checked) == (12, manifest.total_bytes)
    assert seen[-1].bytes_done == seen[-1].bytes_total == manifest.total_bytes
    assert find_damage(store, manifest, 5) is None


def test_every_kind_of_damage_is_named(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    keys = manifest.keys
    store.delete(keys[1])
    store.put(keys[4], store.get_range(keys[4], 0, 1000))
    change(store, keys[6], 777)
    change(store, "index/train/img_09_of_12.tfrecord.idx", 2)
    store.delete("index/train/img_10_of_12.tfrecord.idx")
    report = verify(store, manifest, threads=3)
    assert not report.good
    assert (report.missing, report.wrong_size, report.changed) == (1, 1, 3)
    found = [(damage.kind, damage.key) for damage in report.damages]
    assert found == [
        ("missing", keys[1]),
        ("size", keys[4]),
        ("changed", keys[6]),
        ("side", "index/train/img_09_of_12.tfrecord.idx"),
        ("side", "index/train/img_10_of_12.tfrecord.idx"),
    ]
    assert report.damages[2].expected == f"checksum xxh3 {manifest[6].checksum:016x}"
    assert "expected checksum xxh3" in report.damages[2].sentence
    assert report.damages[1].got == "1000 bytes"


@pytest.mark.parametrize("offset", [0, 777, -1])
def test_the_first_differing_byte_is_found(made: tuple[Store, Manifest], offset: int) -> None:
    store, manifest = made
    size = int(manifest.sizes_bytes[6])
    change(store, manifest.keys[6], offset % size)
    damage = find_damage(store, manifest, 6)
    assert damage is not None
    assert (damage.kind, damage.offset_bytes) == ("changed", offset % size)
    assert damage.expected != damage.got


def test_a_short_or_a_long_file_differs_at_its_end(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    data = bytes(store.get_range(manifest.keys[2]))
    for found, place in ((data[:-5], len(data) - 5), (data + b"more", len(data)), (b"", 0)):
        store.put(manifest.keys[2], found)
        damage = find_damage(store, manifest, 2)
        assert damage is not None
        assert (damage.kind, damage.offset_bytes) == ("size", place)
    store.delete(manifest.keys[2])
    damage = find_damage(store, manifest, 2)
    assert damage is not None
    assert damage.kind == "missing"


def test_a_part_of_the_files_is_chosen_by_the_seed(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    report = verify(store, manifest, sample_ratio=0.25, seed=5)
    assert (report.files_checked, report.files, report.seed) == (3, 12, 5)
    found = set()
    for seed in range(40):
        change(store, manifest.keys[7], 9)
        found.add(verify(store, manifest, sample_ratio=0.25, seed=seed).good)
        change(store, manifest.keys[7], 9)
    assert found == {True, False}


def test_without_checksums_presence_and_size_are_compared(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    plain = Manifest(manifest.format, manifest.keys, manifest.sizes_bytes, manifest.samples)
    change(store, manifest.keys[3], 50)
    report = verify(store, plain)
    assert (report.good, report.checksums, report.bytes_checked) == (True, False, 0)
    store.delete(manifest.keys[3])
    assert verify(store, plain).missing == 1
    with pytest.raises(UsageError, match="content of this dataset is not known"):
        find_damage(store, plain, 0)


def test_a_part_of_a_manifest_verifies_its_own_files(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    change(store, manifest.keys[3], 50)
    assert verify(store, manifest.part(slice(0, 3))).good
    odd = manifest.part(slice(1, None, 2))
    assert [damage.key for damage in verify(store, odd).damages] == [manifest.keys[3]]
    damage = find_damage(store, odd, 1)
    assert damage is not None
    assert damage.offset_bytes == 50


def test_damages_beyond_a_thousand_are_counted(made: tuple[Store, Manifest]) -> None:
    store, _ = made
    keys = [f"train/none-{number}" for number in range(2500)]
    ones = np.ones(2500, np.int64)
    report = verify(store, Manifest("raw", keys, ones, ones))
    assert report.missing == 2500
    assert [damage.key for damage in report.damages] == keys[:1000]


def test_a_ratio_out_of_range_is_refused(made: tuple[Store, Manifest]) -> None:
    store, manifest = made
    for ratio in (0.0, 1.5):
        with pytest.raises(UsageError):
            verify(store, manifest, sample_ratio=ratio)
