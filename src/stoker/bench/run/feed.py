"""The main job: can this storage feed N accelerators? Generate what the budget allows, run, judge, clean up."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.conduct import ProgressEvent, conduct
from stoker.bench.run.doctor import examine_target, require
from stoker.bench.run.launch_mpi import is_first_rank
from stoker.bench.run.plan import (
    FREE_SPACE_SHARE,
    Settings,
    dataset_of,
    default_processes,
    feed_sizes,
    training_plan,
    workload_entry,
)
from stoker.bench.run.target import TargetFacts, child_url, existing_manifest, look_at, opened
from stoker.core.errors import UsageError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, Job, TrainingPlan
from stoker.core.result import Result
from stoker.loader.dataset.generate import GenerateOptions
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.progress import Progress
from stoker.loader.dataset.remove import remove
from stoker.storage.api import SupportsSweep

FOLDER: Final = "stoker-feed"
QUICK_LOOK: Final = "A quick look, not a submission: the dataset is sized by the time budget, not by the rules."


class FeedPlan(msgspec.Struct, frozen=True):
    """What `feed` will do: the training plan, where its data lies, and what must be generated first.

    `name` is the folder below `target` for generated data, empty when a ready dataset at the target itself is read.
    """

    training: TrainingPlan
    target: str
    name: str
    generate: bool
    generate_bytes: float
    processes: int
    run_seconds: float
    budget_seconds: float
    write_bytes_per_second: float
    write_rate_measured: bool


def plan_feed(settings: Settings, target: str, *, touch: bool) -> FeedPlan:
    """Decide everything. With `touch` the target is checked and its write rate measured, else that is assumed.

    Under MPI rank 0 alone touches the target: its plan is the one that all ranks follow.
    """
    entry, _ = workload_entry(settings)
    touch = touch and is_first_rank()
    if touch:
        require(examine_target(target))
    draft = training_plan(settings, entry.dataset(files=entry.files), target_url=redact_url(target))
    ready = _ready_dataset(settings, target, draft)
    if ready is not None:
        return ready
    facts = look_at(target, draft.dataset, write=touch)
    return _plan_generation(settings, target, draft, facts)


def _ready_dataset(settings: Settings, target: str, draft: TrainingPlan) -> FeedPlan | None:
    """Return the plan that reads a dataset of ours that is already there: at the target, or kept by an earlier feed."""
    for name in ("", f"{FOLDER}-{draft.model}"):
        manifest = existing_manifest(child_url(target, name))
        if manifest is not None:
            return _feed_plan(settings, dataset_of(manifest, draft.dataset), (target, name), None)
    return None


def _plan_generation(settings: Settings, target: str, draft: TrainingPlan, facts: TargetFacts) -> FeedPlan:
    space_bytes = settings["size_max"].value or facts.free_bytes * FREE_SPACE_SHARE
    sizes = feed_sizes(
        draft,
        budget_seconds=settings["budget"].value,
        write_bytes_per_second=facts.write_bytes_per_second,
        space_bytes=min(space_bytes, facts.free_bytes * 0.95),
    )
    dataset = msgspec.structs.replace(draft.dataset, files=sizes.files)
    return _feed_plan(settings, dataset, (target, f"{FOLDER}-{draft.model}"), facts)


def _feed_plan(settings: Settings, dataset: DatasetSpec, place: tuple[str, str], facts: TargetFacts | None) -> FeedPlan:
    plan = training_plan(settings, dataset, target_url=redact_url(child_url(*place)))
    budget_seconds = settings["budget"].value
    run_seconds = math.floor(budget_seconds * (0.5 if facts else 0.85))
    notes = (*plan.notes, QUICK_LOOK)
    return FeedPlan(
        training=msgspec.structs.replace(plan, epochs=0, duration_seconds=float(run_seconds), notes=notes),
        target=place[0],
        name=place[1],
        generate=facts is not None,
        generate_bytes=plan.dataset.samples * plan.dataset.record_length_bytes if facts else 0.0,
        processes=default_processes(plan.dataset),
        run_seconds=float(run_seconds),
        budget_seconds=budget_seconds,
        write_bytes_per_second=facts.write_bytes_per_second if facts else 0.0,
        write_rate_measured=facts.measured if facts else False,
    )


def run_feed(
    job: Job,
    plan: FeedPlan,
    folder: Path,
    *,
    keep: bool,
    on_generate: Callable[[Progress], None] | None = None,
    on_progress: Callable[[ProgressEvent], None] | None = None,
) -> Result:
    """Do what the plan says and return the saved result; a generated dataset is removed again unless `keep`."""
    url = child_url(plan.target, plan.name)
    first = is_first_rank()
    try:
        if plan.generate and first:
            dataset = plan.training.dataset
            generate_parallel(url, dataset, GenerateOptions(), processes=plan.processes, progress=on_generate)
        return conduct(job, plan.training, url, folder, progress=on_progress)
    finally:
        if plan.generate and first and not keep:
            _remove(plan.target, plan.name)


def _remove(target: str, name: str) -> None:
    """Remove the dataset and its folder below the target, if a dataset of ours is there."""
    # Without a marker it was stopped before anything was put: nothing there is ours.
    with opened(child_url(target, name)) as store, suppress(UsageError):
        remove(store, "train")
    with opened(target) as store:
        if isinstance(store, SupportsSweep):
            store.sweep(name)
