"""Files of DLIO and ours: the same names, sizes and arrays, and each side trains on the other's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dlio_commands import Place, tiny
from dlio_schema import check_output_files
from PIL import Image
from stock_dlio import needs_stock, stock

from stoker.loader.dataset.discover import open_manifest
from stoker.loader.loader import Loader, LoaderOptions
from stoker.storage.opening import open_store

pytestmark = [needs_stock, pytest.mark.slow]
# Their size follows from the shape alone. Pictures and text shrink or grow with the content, and an HDF5 file by what
# the library sets aside for metadata, which depends on how it writes.
SIZED = ("npz", "npy", "indexed_binary", "mmap_indexed_binary", "synthetic")
Arrays = dict[str, np.ndarray]


def load_npz(file: Path) -> Arrays:
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def load_hdf5(file: Path) -> Arrays:
    with h5py.File(file) as opened:
        return {name: opened[name][...] for name in opened}


def load_picture(file: Path) -> Arrays:
    with Image.open(file) as picture:
        return {picture.mode: np.array(picture)}


def load_indexed(file: Path) -> Arrays:
    names = {"": np.uint8, ".off.idx": np.uint64, ".sz.idx": np.uint64}
    return {suffix: np.fromfile(f"{file}{suffix}", kind) for suffix, kind in names.items()}


LOADERS: dict[str, Callable[[Path], Arrays]] = {
    "npz": load_npz,
    "npy": lambda file: {"": np.load(file, allow_pickle=False)},
    "hdf5": load_hdf5,
    "csv": lambda file: {"": np.loadtxt(file, delimiter=",", dtype=np.int64, ndmin=2)},
    "jpeg": load_picture,
    "png": load_picture,
    "indexed_binary": load_indexed,
    "mmap_indexed_binary": load_indexed,
    "synthetic": lambda file: {"": np.frombuffer(file.read_bytes(), np.uint8)},
}
SPREAD = {"record_length_bytes": 16384, "record_length_bytes_stdev": 4096}
EXACT = {"record_dims": [6, 8, 2], "record_element_type": "float32", "num_samples_per_file": 2}
PARTS = {"num_dset_per_record": 3, "max_shape": [2, 8, 2]}
CASES: dict[str, dict[str, Any]] = {
    "npz of drawn sizes in subfolders": tiny("npz", dataset={**SPREAD, "num_subfolders_train": 2, "num_files_eval": 3}),
    "npz of several samples": tiny("npz", dataset=EXACT),
    "npy of several samples": tiny("npy", dataset=EXACT),
    "npy of drawn sizes": tiny("npy", dataset=SPREAD),
    "hdf5 of several samples": tiny("hdf5", dataset=EXACT),
    "hdf5 of several datasets": tiny("hdf5", dataset={**EXACT, "hdf5": PARTS}),
    "csv": tiny("csv", dataset={"record_length_bytes": 1024}),
    "jpeg of drawn sizes": tiny("jpeg", dataset=SPREAD),
    "png": tiny("png"),
    "mmap_indexed_binary": tiny("mmap_indexed_binary", dataset={"num_samples_per_file": 2}),
    "indexed_binary": tiny("indexed_binary", dataset={"num_samples_per_file": 2}),
    "synthetic": tiny("synthetic"),
}


def both(tmp_path: Path, workload: dict[str, Any]) -> tuple[Place, Place]:
    """Return two places with the same workload `mine`: ours and DLIO's."""
    places = Place(tmp_path / "ours"), Place(tmp_path / "theirs")
    for place in places:
        place.folder.mkdir()
        place.workload("mine", workload)
    return places


def delivered(folder: Path, form: str, samples_per_file: int) -> list[np.ndarray]:
    """Return every sample that our loader makes of a foreign dataset, in order."""
    store = open_store(str(folder))
    manifest = open_manifest(store, "train", format_name=form, samples_per_file=samples_per_file)
    with Loader(store, manifest, LoaderOptions(batch_size=1, order="sequential")) as loader:
        samples = [np.array(batch.samples[0]) for batch in loader.epoch(1)]
    store.close()
    return samples


def truth(form: str, arrays: Arrays, index: int) -> np.ndarray:
    """Return one sample of a file that the format's own library has read."""
    if form in ("npz", "npy"):
        return arrays["x" if form == "npz" else ""][..., index]
    if form == "hdf5":
        return np.concatenate([arrays[name][index] for name in sorted(arrays) if name != "labels"])
    if form.endswith("indexed_binary"):
        start, size = (int(arrays[suffix][index]) for suffix in (".off.idx", ".sz.idx"))
        return arrays[""][start : start + size]
    return arrays[""][index] if form == "csv" else next(iter(arrays.values()))


def assert_alike(form: str, ours: Path, theirs: Path) -> None:
    """Assert that two files hold arrays of the same names, types and shapes, and where it follows as many bytes."""
    if form in SIZED:
        assert ours.stat().st_size == theirs.stat().st_size
    described = [
        {key: (array.dtype, array.shape) for key, array in LOADERS[form](file).items()} for file in (ours, theirs)
    ]
    assert described[0] == described[1]


def assert_delivered(folder: Path, form: str, samples_per_file: int, files: list[Path]) -> None:
    """Assert that our loader delivers what the format's own library reads of a foreign dataset."""
    found = delivered(folder, form, samples_per_file)
    assert len(found) == samples_per_file * len(files)
    for number, sample in enumerate(found):
        arrays = LOADERS[form](files[number // samples_per_file])
        expected = truth(form, arrays, number % samples_per_file)
        np.testing.assert_array_equal(sample.reshape(-1), expected.reshape(-1))


@pytest.mark.parametrize("name", CASES)
def test_files_are_alike_and_each_side_trains_on_the_others(tmp_path: Path, name: str) -> None:
    workload = CASES[name]
    ours, theirs = both(tmp_path, workload)
    assert ours.dlio("workload=mine", "++workload.workflow.train=False").code == 0
    stock(theirs, "workload=mine", "++workload.workflow.train=False")
    form, samples = workload["dataset"]["format"], workload["dataset"].get("num_samples_per_file", 1)
    assert ours.files("train") == theirs.files("train")
    assert ours.files("valid") == theirs.files("valid")
    names = [file for file in ours.files("train") if file.endswith(f".{form}")]
    names.sort(key=lambda file: file.rpartition("/")[2])
    for file in names:
        assert_alike(form, ours.folder / "data/train" / file, theirs.folder / "data/train" / file)
    steps = 8 * samples // 2
    done = stock(ours, "workload=mine", "++workload.workflow.generate_data=False")
    assert f"{steps} steps completed in" in done.out + done.errors
    done = theirs.dlio("workload=mine", "++workload.workflow.generate_data=False")
    assert done.code in (0, 3), done.errors
    check_output_files(theirs, steps=steps)
    if form != "synthetic":
        data = theirs.folder / "data"
        assert_delivered(data, form, samples, [data / "train" / file for file in names])


def test_a_run_of_ours_reads_files_that_another_made(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, tiny("npz", dataset=SPREAD))
    stock(theirs, "workload=mine", "++workload.workflow.train=False")
    words = ["--model", "unet3d", "--accelerator", "h100", "--format", "npz", "--batch-size", "2", "--epochs", "1"]
    words += ["--computation-time", "0.005", "--results", "results", "--json"]
    done = ours.stoker("run", "training", str(theirs.folder / "data"), *words)
    assert done.code in (0, 3), done.errors
    sizes = [np.load(file)["x"].nbytes for file in (theirs.folder / "data/train").iterdir()]
    assert done.document["evidence"]["ledger"]["delivered_bytes"] == sum(sizes)
    assert done.document["evidence"]["ledger"]["samples_delivered"] == 8
