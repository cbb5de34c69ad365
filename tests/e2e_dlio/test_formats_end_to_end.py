"""`stoker dlio` on every format of DLIO: the files are made, trained on, and told of in DLIO's own files."""

from typing import Any

import pytest
from dlio_commands import Place, tiny
from dlio_schema import check_output_files

UNET3D = tiny(
    "npz",
    model={"name": "unet3d", "type": "cnn", "model_size": 499153191},
    dataset={"record_length_bytes": 16384, "record_length_bytes_stdev": 4096, "record_length_bytes_resize": 4096},
    reader={"file_shuffle": "seed", "sample_shuffle": "seed", "read_threads": 4},
    checkpoint={"checkpoint_folder": "checkpoints/unet3d", "checkpoint_after_epoch": 5},
    metric={"au": 0.90},
)
RESNET50 = tiny(
    "tfrecord",
    framework="tensorflow",
    dataset={"num_files_train": 4, "num_samples_per_file": 6, "file_prefix": "part", "record_length_bytes": 1146.6},
    reader={"computation_threads": 2, "shuffle_size": 2, "transfer_size": 262144, "batch_size": 4},
)
HDF5 = tiny(
    "hdf5",
    dataset={
        "num_samples_per_file": 4,
        "record_dims": [4, 16, 16],
        "record_element_type": "float32",
        "compression": "gzip",
        "hdf5": {"chunk_dims": [1, 2, 16, 16], "num_dset_per_record": 2},
    },
)
DLRM = tiny(
    "indexed_binary", dataset={"num_samples_per_file": 16}, reader={"sample_shuffle": "random", "batch_size": 8}
)
MEGATRON = tiny(
    "mmap_indexed_binary",
    model={"optimization_groups": [1024, 512], "num_layers": 4, "parallelism": {"pipeline": 2, "tensor": 2}},
    dataset={"num_files_train": 1, "num_samples_per_file": 64, "record_length_bytes": 2048},
    train={"total_training_steps": 5},
)
FLUX_COLUMNS = [
    {"name": "encoding", "dtype": "float32", "size": 64},
    {"name": "unread", "dtype": "float32", "size": 64, "read": False},
    {"name": "step", "dtype": "int64", "size": 1},
]
FLUX = tiny(
    "parquet",
    dataset={"num_samples_per_file": 8, "parquet": {"columns": FLUX_COLUMNS, "row_group_size": 4}},
    reader={"batch_size": 4},
    storage={"storage_type": "local_fs", "storage_root": "./"},
)
DISTRIBUTED = tiny(
    "npy", framework="tensorflow", train={"computation_time": {"type": "uniform", "min": 0, "max": 0.01}}
)
DISTRIBUTED["data_reader"] = {**DISTRIBUTED.pop("reader"), "preprocess_time": {"mean": 0.0005, "stdev": 0.0001}}
# name → (workload, steps of an epoch, words of warnings)
SHAPES: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "unet3d npz": (UNET3D, 4, ["model_size_bytes"]),
    "resnet50 tfrecord": (RESNET50, 6, ["reader.transfer_size"]),
    "hdf5 of several datasets": (HDF5, 16, []),
    "npy with the reader's other name": (DISTRIBUTED, 4, []),
    "csv": (tiny("csv", dataset={"num_samples_per_file": 3, "record_length_bytes": 256}), 12, []),
    "jpeg": (tiny("jpeg", dataset={"num_files_train": 6}), 3, []),
    "png": (tiny("png", framework="tensorflow", dataset={"record_dims": [32, 24]}), 4, []),
    "dlrm indexed_binary": (DLRM, 16, []),
    "megatron mmap_indexed_binary": (MEGATRON, 5, []),
    "synthetic": (tiny("synthetic", dataset={"num_samples_per_file": 2}), 8, []),
    "flux parquet": (FLUX, 16, []),
}


QUICK = ("unet3d npz", "resnet50 tfrecord", "flux parquet", "dlrm indexed_binary")
"""Each format is proven in `make test` by its own contract; these four stand here for the way through the program."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SHAPES])
def test_a_workload_of_each_format_generates_trains_and_tells(place: Place, name: str) -> None:
    workload, steps, warned = SHAPES[name]
    word = place.workload("mine", workload)
    done = place.dlio(word)
    assert done.code in (0, 3), done.errors
    told = [line for line in done.errors.splitlines() if line.startswith("warning: ")]
    assert len(told) == len(warned), told
    assert all(word in line for word, line in zip(warned, told, strict=True)), told
    check_output_files(place, steps=steps)
    form, count = workload["dataset"]["format"], workload["dataset"]["num_files_train"]
    files = [name for name in place.files("train") if name.endswith(f".{form}")]
    prefix = workload["dataset"].get("file_prefix", "img")
    assert files == [f"{prefix}_{number}_of_{count}.{form}" for number in range(count)]
