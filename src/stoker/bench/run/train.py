"""`run training`: the plan of a run over a dataset that is there, or of the one that the rules ask for."""

from typing import Any

import msgspec
import psutil

from stoker.bench.run.plan import Settings, dataset_of, files_for_compliance, training_plan, workload_entry
from stoker.bench.run.target import opened
from stoker.core.errors import NotFoundError, PreflightError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, TrainingPlan
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store


def compliant_dataset(settings: Settings) -> DatasetSpec:
    """Return the dataset that a rules-compliant run of the asked model needs on a host like this one."""
    entry, ranks = workload_entry(settings)
    dataset = entry.dataset(files=entry.files)
    per_step = entry.batch_size * ranks
    files = files_for_compliance(dataset, per_step_samples=per_step, memory_bytes=psutil.virtual_memory().total)
    return msgspec.structs.replace(dataset, files=files)


def plan_training(settings: Settings, target: str | None) -> TrainingPlan:
    """Return the plan of a training run over the dataset at `target`, or over the compliant one without a target.

    Raises PreflightError when there is no dataset at the target, or only a part of one.
    """
    if target is None:
        return training_plan(settings, compliant_dataset(settings), target_url="")
    entry, _ = workload_entry(settings)
    with opened(target) as store:
        if store.url.startswith("null://"):
            dataset = _imagined(settings, entry.dataset(files=entry.files))
        else:
            manifest = _manifest(settings, store)
            dataset = dataset_of(manifest, entry.dataset(files=len(manifest)))
    return training_plan(settings, dataset, target_url=redact_url(target))


def _manifest(settings: Settings, store: Store) -> Manifest:
    told, samples = settings["format"].value, settings["samples_per_file"].value
    try:
        return open_manifest(store, "train", format_name=told, samples_per_file=samples)
    except NotFoundError as error:
        raise PreflightError(
            "target holds no training dataset",
            where=store.url,
            expected="files below train/",
            got=error.what,
            remedy="make one with stoker gen, or name the folder above train/ and, for foreign files, their --format",
        ) from error


def _imagined(settings: Settings, dataset: DatasetSpec) -> DatasetSpec:
    """Return the model's dataset, changed by what was told of it: a store that keeps nothing has every file."""
    names = ("format", "samples_per_file")
    told: dict[str, Any] = {name: settings[name].value for name in names if settings[name].value is not None}
    return msgspec.structs.replace(dataset, **told)
