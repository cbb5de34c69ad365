"""Other people's datasets are found by listing; ours by manifest, and removed to the last file and no more."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import CorruptError, NotFoundError, PreflightError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import run_id
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.dataset.naming import manifest_key, marker_key
from stoker.loader.dataset.recipe import read_options
from stoker.loader.dataset.remove import remove
from stoker.storage.api import Store
from stoker.storage.opening import open_store


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(f"mem://{run_id()}")
    yield opened
    for info in list(opened.list()):
        opened.delete(info.key)


def npz(samples: int) -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.zeros((6, 7, samples), np.uint8), y=np.zeros(samples, np.int64))
    return out.getvalue()


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def test_a_foreign_dataset_is_listed_and_looked_into(store: Store) -> None:
    for number in (2, 0, 1):
        store.put(f"train/{number % 2}/img_{number}_of_3.npz", npz(5))
    store.put("train/0/README.txt", b"words")
    store.put("train/0/img_0_of_3.npz.tmp", b"half")
    manifest = open_manifest(store)
    assert (manifest.format, manifest.spec, manifest.checksums) == ("npz", None, None)
    assert list(manifest.keys) == ["train/0/img_0_of_3.npz", "train/1/img_1_of_3.npz", "train/0/img_2_of_3.npz"]
    assert list(manifest.samples) == [5, 5, 5]
    assert manifest.total_bytes == 3 * len(npz(5))
    assert read_options(manifest, 1) == {"samples": 5}


def test_what_is_told_is_not_looked_up(store: Store) -> None:
    for number in range(3):
        store.put(f"train/{number}.raw", bytes(100))
    manifest = open_manifest(store, format_name="raw", samples_per_file=4)
    assert (manifest.format, list(manifest.samples)) == ("raw", [4, 4, 4])
    with pytest.raises(UsageError, match="tell the samples per file"):
        open_manifest(store, format_name="raw")


def test_usual_endings_are_known(store: Store) -> None:
    store.put("photos/b.jpg", b"\xff\xd8\xff\xe0more")
    store.put("photos/a.jpeg", b"\xff\xd8\xff\xe0more")
    assert list(open_manifest(store, "photos").keys) == ["photos/a.jpeg", "photos/b.jpg"]


def test_the_whole_store_is_a_split_too(store: Store) -> None:
    store.put("a.npy", b"\x93NUMPY")
    store.put(".stoker/train.marker", b"{}")
    assert list(open_manifest(store, "", samples_per_file=1).keys) == ["a.npy"]


def test_a_surplus_is_left_out_and_a_lack_is_an_error(store: Store) -> None:
    for number in range(5):
        store.put(f"train/{number}.npz", npz(2))
    assert len(open_manifest(store, limit=3)) == 3
    with pytest.raises(PreflightError, match="expected 6 files, got 5 files"):
        open_manifest(store, limit=6)
    for wrong in ({"limit": 0}, {"samples_per_file": 0}):
        with pytest.raises(UsageError):
            open_manifest(store, **wrong)


def test_an_empty_or_unknown_folder_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no files of a known format"):
        open_manifest(store)
    store.put("train/words.txt", b"words")
    with pytest.raises(NotFoundError, match="no files of a known format"):
        open_manifest(store)
    with pytest.raises(NotFoundError, match="names that end in 'npz'"):
        open_manifest(store, format_name="npz")


def test_ours_is_opened_without_a_listing(store: Store) -> None:
    generate(store, DatasetSpec("raw", 4, 3, record_dims=(5, 2), element_type="float32"))
    manifest = open_manifest(store, limit=3)
    assert len(manifest) == 3
    assert read_options(manifest, 2) == {"samples": 3, "shape": (5, 2), "dtype": "float32"}
    assert len(open_manifest(store, format_name="raw", samples_per_file=3)) == 4
    with pytest.raises(UsageError, match="another format"):
        open_manifest(store, format_name="npz")
    with pytest.raises(UsageError, match="another samples_per_file"):
        open_manifest(store, samples_per_file=2)


def test_a_damaged_manifest_is_not_replaced_by_a_listing(store: Store) -> None:
    generate(store, DatasetSpec("raw", 4, record_dims=(5, 2)))
    store.put(manifest_key("train"), b"x" * 100)
    with pytest.raises(CorruptError):
        open_manifest(store)


@pytest.mark.parametrize("name", ["npz", "tfrecord", "indexed_binary"])
def test_removing_takes_ours_and_leaves_the_rest(store: Store, name: str) -> None:
    spec = DatasetSpec(name, 6, 3, record_dims=(5, 2), subfolders=2)
    others = ["train/0/mine.txt", f"train/1/img_9_of_6.{name}", f"train/img_1_of_6.{name}", "valid/x", "x"]
    generate(store, spec)
    made = keys(store)
    for key in others:
        store.put(key, b"mine")
    report = remove(store, "train")
    assert keys(store) == sorted(others)
    assert report.files_removed == len(made) - 2
    assert report.foreign == tuple(sorted(others)[: report.foreign_count])
    assert report.foreign_count == 3
    with pytest.raises(UsageError, match="no split of ours"):
        remove(store, "train")


def test_an_unfinished_split_is_removed_too(store: Store) -> None:
    spec = DatasetSpec("npz", 6, record_dims=(5, 2))
    generate(store, spec, GenerateOptions(rank=1, world=3))
    assert remove(store, "train").files_removed == 2
    assert keys(store) == []
    assert generate(store, DatasetSpec("npz", 3, record_dims=(5, 2))).complete


def test_without_a_good_marker_nothing_is_removed(store: Store) -> None:
    store.put("train/img_0_of_1.npz", b"x")
    for marker in (b"{", b'{"identity":"x","spec":{"format":"npz","files":1,"split":"valid"}}'):
        store.put(marker_key("train"), marker)
        with pytest.raises(CorruptError):
            remove(store, "train")
    hostile = b'{"identity":"x","spec":{"format":"npz","files":1,"prefix":"../../img"}}'
    store.put(marker_key("train"), hostile)
    with pytest.raises(UsageError):
        remove(store, "train")
    assert keys(store) == [marker_key("train"), "train/img_0_of_1.npz"]


def test_symbolic_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "data"
    store = open_store(f"file://{folder}?fsync=none", create=True)
    spec = DatasetSpec("npz", 4, record_dims=(5, 2), subfolders=2)
    generate(store, spec)
    precious = outside / "img_1_of_4.npz"
    precious.write_bytes(b"precious")
    (folder / "train" / "0" / "img_0_of_4.npz").unlink()
    (folder / "train" / "0" / "img_0_of_4.npz").symlink_to(precious)
    (folder / "train" / "1").rename(tmp_path / "moved")
    (folder / "train" / "1").symlink_to(outside)
    report = remove(store, "train")
    store.close()
    assert report.files_removed == 1
    assert precious.read_bytes() == b"precious"
    assert (folder / "train" / "0" / "img_0_of_4.npz").is_symlink()
    assert not (folder / ".stoker" / "train.marker").exists()
