"""`run training`: the plan of a run over a dataset that is there, or of the one that the rules ask for."""

import msgspec
import psutil

from stoker.bench.run.plan import Settings, dataset_of, files_for_compliance, training_plan, workload_entry
from stoker.bench.run.target import opened
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, TrainingPlan
from stoker.loader.dataset.discover import open_manifest


def compliant_dataset(settings: Settings) -> DatasetSpec:
    """Return the dataset that a rules-compliant run of the asked model needs on a host like this one."""
    entry, ranks = workload_entry(settings)
    dataset = entry.dataset(files=entry.files)
    per_step = entry.batch_size * ranks
    files = files_for_compliance(dataset, per_step_samples=per_step, memory_bytes=psutil.virtual_memory().total)
    return msgspec.structs.replace(dataset, files=files)


def plan_training(settings: Settings, target: str | None) -> TrainingPlan:
    """Return the plan of a training run over the dataset at `target`, or over the compliant one without a target.

    Raises NotFoundError when the target or its dataset is missing.
    """
    if target is None:
        return training_plan(settings, compliant_dataset(settings), target_url="")
    entry, _ = workload_entry(settings)
    with opened(target) as store:
        name = settings["format"].value
        manifest = open_manifest(store, "train", format_name=name, samples_per_file=settings["samples_per_file"].value)
    dataset = dataset_of(manifest, entry.dataset(files=len(manifest)))
    return training_plan(settings, dataset, target_url=redact_url(target))
