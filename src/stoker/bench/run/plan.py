"""From settings to decisions: pure functions of what was asked and of what the target was seen to be."""

import math
import os
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.formulas import minimum_files
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.workloads import catalogue
from stoker.bench.workloads.catalogue import CatalogueEntry
from stoker.core import seed
from stoker.core.errors import UsageError
from stoker.core.options import Setting
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.core.units import GiB, format_bytes, format_rate, format_seconds
from stoker.loader.manifest import Manifest
from stoker.loader.tuning_bounds import REQUEST_UNIT_BYTES

RUN_SHARE: Final = 0.5
GENERATE_SHARE: Final = 0.35
STEPS_WANTED: Final = 6
FREE_SPACE_SHARE: Final = 0.5
FREE_SPACE_SHARE_MAX: Final = 0.95
OTHER_LENGTH_RATIO: Final = 0.1
RANKS_MAX: Final = 1 << 20
GENERATE_PROCESS_BYTES: Final = 4 * GiB

Settings = dict[str, Setting]


def workload_entry(settings: Settings) -> tuple[CatalogueEntry, int]:
    """Return the catalogue entry and the number of accelerators asked for by `--model` and `--accelerator`.

    A count that is not told is that of the ranks told by `--hosts`, else 1.

    Raises UsageError when one is missing, UnknownNameError for a name the catalogue does not have.
    """
    model, words = settings["model"].value, settings["accelerator"].value
    if not model:
        raise UsageError("--model is missing", remedy="known: " + ", ".join(catalogue.models()))
    if not words:
        known = ", ".join(catalogue.accelerators(model))
        raise UsageError("--accelerator is missing", remedy=f"known for {model}: {known}, each with a count such as :2")
    kind, colon, count = str(words).partition(":")
    if colon and not (count.isdecimal() and len(count) < 10 and 0 < int(count) <= RANKS_MAX):
        expected = f"KIND:COUNT such as h100:2, at most {RANKS_MAX}"
        raise UsageError("--accelerator: bad count", where=words, expected=expected)
    return catalogue.entry(model, kind), int(count) if colon else slots_of(settings)


def slots_of(settings: Settings) -> int:
    """Return the ranks that `--hosts a:2,b:3` asks for together, 1 where it does not tell."""
    hosts = settings.get("hosts")
    return max(1, sum(host.slots for host in parse_hosts(hosts.value))) if hosts is not None and hosts.value else 1


def training_plan(settings: Settings, dataset: DatasetSpec, *, target_url: str) -> TrainingPlan:
    """Return the plan of a training run of the asked model over `dataset`.

    Raises UsageError when the dataset has too few samples for a single step.
    """
    entry, ranks = workload_entry(settings)
    template = entry.training_plan(ranks=ranks)
    changes: dict[str, Any] = {"dataset": dataset, "target_url": target_url}
    names = {
        "batch_size": "batch_size",
        "read_threads": "read_threads",
        "queue_depth": "queue_depth",
        "request_bytes": "request_bytes",
        "decode_threads": "decode_threads",
        "prefetch_batches": "prefetch_batches",
        "order": "order",
        "verify": "verify",
        "collate": "collate",
        "evict": "evict",
        "launcher": "launcher",
        "epochs": "epochs",
        "steps": "steps_max",
        "duration": "duration_seconds",
        "threshold": "au_threshold_ratio",
        "host_interval": "host_interval_seconds",
        "rank_deadline": "rank_deadline_seconds",
    }
    for option, field in names.items():
        setting = settings.get(option)
        if setting is not None and setting.value is not None:
            changes[field] = setting.value
    others = settings.get("sample_hosts")
    if others is not None and others.value:
        changes["sample_hosts"] = tuple(host.name for host in parse_hosts(others.value))
    _check_request(changes.get("request_bytes", 0))
    given_seed = settings["seed"].value
    changes["seed"] = seed.fresh() if given_seed is None else given_seed
    if settings["computation_time"].value is not None:
        changes["computation"] = Spread(parameters={"value": settings["computation_time"].value})
    plan = msgspec.structs.replace(template, **changes)
    return predicted(msgspec.structs.replace(plan, deviations=tuple(_deviations(plan, template))))


def _check_request(request_bytes: int) -> None:
    """Raise UsageError for a size that no store can be asked for."""
    if request_bytes % REQUEST_UNIT_BYTES:
        raise UsageError(
            "--request-bytes does not fit",
            expected=f"a multiple of {format_bytes(REQUEST_UNIT_BYTES)}",
            got=f"{request_bytes} bytes",
        )


def _deviations(plan: TrainingPlan, template: TrainingPlan) -> Iterator[str]:
    """Yield where the plan departs from the model it is named after: no reader may take the one for the other."""
    asked, model = plan.dataset, template.dataset
    length_ratio = asked.record_length_bytes / model.record_length_bytes
    if asked.format != model.format or abs(length_ratio - 1) > OTHER_LENGTH_RATIO:
        yield f"The dataset is not {plan.model}'s: {_samples_told(asked)}; the model has {_samples_told(model)}."
    if plan.batch_size != template.batch_size:
        yield f"The batch size is {plan.batch_size}; the model's is {template.batch_size}."
    if plan.computation != template.computation:
        seconds = (format_seconds(each.computation.mean_seconds()) for each in (plan, template))
        yield "A step computes for {}; the model's for {}.".format(*seconds)
    if plan.au_threshold_ratio != template.au_threshold_ratio:
        yield f"The threshold is AU {plan.au_threshold_ratio:.0%}; the model's is {template.au_threshold_ratio:.0%}."


def _samples_told(dataset: DatasetSpec) -> str:
    return f"{dataset.format} samples of {format_bytes(dataset.record_length_bytes)}"


def predicted(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan with what it will take: steps, bytes, the demand at full speed, and the least seconds.

    Raises UsageError when the dataset has too few samples for a single step.
    """
    per_step = plan.batch_size * plan.ranks
    steps = plan.dataset.samples // per_step
    if steps == 0:
        raise UsageError(
            "dataset is too small for one step",
            expected=f"{per_step} samples ({plan.ranks} ranks x batch {plan.batch_size})",
            got=f"{plan.dataset.samples} samples",
            remedy="generate more files or lower the batch size or the number of accelerators",
        )
    steps = min(steps, plan.steps_max) if plan.steps_max else steps
    step_seconds = plan.computation.mean_seconds()
    record_bytes = plan.dataset.record_length_bytes
    figures = {
        "steps_per_epoch": float(steps),
        "dropped_samples": float(plan.dataset.samples % per_step),
        "dataset_bytes": plan.dataset.samples * record_bytes,
        "epoch_bytes": steps * per_step * record_bytes,
        "demand_bytes_per_second": per_step * record_bytes / step_seconds if step_seconds > 0 else math.inf,
        "seconds_at_full_speed": steps * step_seconds * max(plan.epochs, 1),
    }
    return msgspec.structs.replace(
        plan, predicted={name: value for name, value in figures.items() if value != math.inf}
    )


def dataset_of(manifest: Manifest, entry_dataset: DatasetSpec) -> DatasetSpec:
    """Return the spec of an existing dataset: its own when we made it, else the model's with the counted files."""
    if manifest.spec is not None:
        return manifest.spec
    mean_samples = manifest.total_samples // max(len(manifest), 1)
    mean_bytes = manifest.total_bytes / max(manifest.total_samples, 1)
    return msgspec.structs.replace(
        entry_dataset,
        format=manifest.format,
        files=len(manifest),
        samples_per_file=max(mean_samples, 1),
        record_length_bytes=mean_bytes,
        record_length_stdev_bytes=0.0,
    )


def files_for_compliance(dataset: DatasetSpec, *, per_step_samples: int, memory_bytes: int) -> int:
    """Return the files a rules-compliant run needs: five times the memory, and 500 steps an epoch."""
    return max(
        minimum_files(
            file_bytes=file_bytes(dataset),
            samples_per_file=dataset.samples_per_file,
            per_step_samples=per_step_samples,
            memory_bytes=memory_bytes,
        )
    )


def feed_draft(settings: Settings, *, target_url: str) -> TrainingPlan:
    """Return the plan of a feed whose dataset is not sized yet: large enough for any number of accelerators."""
    entry, ranks = workload_entry(settings)
    batch_size = settings["batch_size"].value or entry.batch_size
    files = max(entry.files, math.ceil(STEPS_WANTED * batch_size * ranks / entry.samples_per_file))
    return training_plan(settings, entry.dataset(files=files), target_url=target_url)


def least_files(plan: TrainingPlan) -> int:
    """Return the files of the smallest dataset that gives an answer: a few steps' worth."""
    return math.ceil(STEPS_WANTED * plan.batch_size * plan.ranks / plan.dataset.samples_per_file)


def file_bytes(dataset: DatasetSpec) -> float:
    """Return the payload bytes of one file."""
    return dataset.samples_per_file * dataset.record_length_bytes


def check_room(plan: TrainingPlan, *, space_bytes: float, got: str) -> None:
    """Raise UsageError, with what was `got`, when the smallest dataset that gives an answer does not fit."""
    least_bytes = least_files(plan) * file_bytes(plan.dataset)
    if least_bytes > space_bytes:
        raise UsageError(
            "too little space for the smallest dataset that gives an answer",
            expected=f"{format_bytes(least_bytes)} ({STEPS_WANTED} steps)",
            got=f"{format_bytes(space_bytes)} {got}",
            remedy="raise --size-max, free space, or choose a smaller --batch-size or fewer accelerators",
        )


def feed_files(plan: TrainingPlan, *, budget_seconds: float, write_bytes_per_second: float, space_bytes: float) -> int:
    """Return how many files the budget allows: no more than are written in its share, read in the run, or stored.

    Raises UsageError when even the smallest dataset that gives an answer takes longer than the budget to write.
    """
    one_bytes, least = file_bytes(plan.dataset), least_files(plan)
    least_seconds = least * one_bytes / write_bytes_per_second
    if least_seconds > budget_seconds:
        told = f"{format_bytes(least * one_bytes)} at {format_rate(write_bytes_per_second)}"
        raise UsageError(
            "budget is too short to write the smallest dataset that gives an answer",
            expected=f"at least {format_seconds(least_seconds)} ({told})",
            got=format_seconds(budget_seconds),
            remedy="raise --budget, choose a smaller --batch-size or fewer accelerators, or make the dataset before "
            "with stoker gen",
        )
    writable = write_bytes_per_second * budget_seconds * GENERATE_SHARE
    useful = plan.predicted.get("demand_bytes_per_second", math.inf) * budget_seconds * RUN_SHARE
    return max(least, math.floor(min(writable, useful, space_bytes) / one_bytes))


def default_processes(dataset: DatasetSpec) -> int:
    """Return how many generator processes serve: one for little, else one a usable CPU, at most 16.

    Starting a process takes longer than writing a gigabyte with the threads of one.
    """
    if dataset.files * file_bytes(dataset) < GENERATE_PROCESS_BYTES:
        return 1
    return min(len(os.sched_getaffinity(0)), 16, dataset.files)
