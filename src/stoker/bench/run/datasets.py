"""`gen`: from settings to the spec of a dataset."""

import re
from typing import Any, Final

import msgspec
import psutil

from stoker.bench.run.plan import Settings, files_for_compliance, workload_entry
from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.marker import read_marker
from stoker.loader.dataset.recipe import Recipe
from stoker.storage.api import Store

DEFAULT_RECORD_BYTES: Final = 65536
_DIMS: Final = re.compile(r"[1-9][0-9]*(x[1-9][0-9]*)*")


def dataset_from(settings: Settings) -> DatasetSpec:
    """Return the dataset that was asked for: a model's, changed by whatever else was given, or one from scratch.

    Raises UsageError when neither a model nor a format with a count is given, two options contradict each other, or no
    such dataset can be made; UnknownNameError for the format.
    """
    if settings["accelerator"].value and not settings["model"].value:
        raise UsageError("--accelerator has no effect without --model", remedy="give --model too, or leave it out")
    base = _base(settings)
    changes: dict[str, Any] = {
        "split": settings["split"].value,
        "subfolders": settings["subfolders"].value,
        "content_seed": settings["content_seed"].value,
        "compress_ratio": settings["compress_ratio"].value,
        "duplicate_ratio": settings["duplicate_ratio"].value,
        **_record(settings),
    }
    if settings["samples_per_file"].value is not None:
        changes["samples_per_file"] = settings["samples_per_file"].value
    if settings["compression"].value is not None:
        changes["options"] = {**base.options, "compression": settings["compression"].value}
    if settings["element_type"].origin != "default":
        changes["element_type"] = settings["element_type"].value
    dataset = msgspec.structs.replace(base, **changes)
    dataset = msgspec.structs.replace(dataset, files=_files(settings, dataset))
    Recipe(dataset)
    return dataset


def begun_dataset(store: Store, split: str) -> DatasetSpec:
    """Return the spec of the split that we began or completed in the store. Raises UsageError when we did not."""
    marker = read_marker(store, split)
    if marker is None:
        raise UsageError("no split of ours is here", where=f"{store.url} {split}")
    return marker.spec


def _base(settings: Settings) -> DatasetSpec:
    """Return the model's dataset, or an empty one of the asked format."""
    name = settings["format"].value
    if settings["model"].value:
        entry, _ = workload_entry(settings)
        base = entry.dataset(files=entry.files)
        return base if name is None else msgspec.structs.replace(base, format=name, options={})
    if name is None:
        raise UsageError(
            "nothing says what to make", remedy="give --model with --accelerator, or --format with --files"
        )
    return DatasetSpec(name, files=0, record_length_bytes=float(DEFAULT_RECORD_BYTES))


def _record(settings: Settings) -> dict[str, Any]:
    length, stdev, dims = (settings[name].value for name in ("record_length", "record_stdev", "dims"))
    if dims is not None:
        if length is not None or stdev is not None:
            raise UsageError("--dims gives the exact shape", remedy="leave --record-length and --record-stdev out")
        if not _DIMS.fullmatch(dims):
            raise UsageError("--dims: not a shape", expected="sides such as 128x128x3", got=dims)
        return {"record_dims": tuple(int(side) for side in dims.split("x")), "record_length_stdev_bytes": 0.0}
    changes: dict[str, Any] = {}
    if length is not None:
        changes = {"record_length_bytes": float(length), "record_length_stdev_bytes": 0.0}
    if stdev is not None:
        changes["record_length_stdev_bytes"] = float(stdev)
    return changes


def _files(settings: Settings, dataset: DatasetSpec) -> int:
    files, size_bytes = settings["files"].value, settings["size"].value
    if files is not None and size_bytes is not None:
        raise UsageError("--files and --size contradict each other", remedy="give one of them")
    if files is not None:
        return int(files)
    if size_bytes is not None:
        return max(1, int(size_bytes / (dataset.samples_per_file * dataset.record_length_bytes)))
    if not settings["model"].value:
        raise UsageError("nothing says how much to make", remedy="give --files or --size")
    entry, ranks = workload_entry(settings)
    memory_bytes = psutil.virtual_memory().total
    return files_for_compliance(dataset, per_step_samples=entry.batch_size * ranks, memory_bytes=memory_bytes)
