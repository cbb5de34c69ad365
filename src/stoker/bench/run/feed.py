"""The main job: can this storage feed N accelerators? Generate what the budget allows, run, judge, clean up."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.conduct import ProgressEvent, conduct
from stoker.bench.run.doctor import require_launcher, require_target
from stoker.bench.run.gathered import gather, require_results
from stoker.bench.run.launch_mpi import is_first_rank
from stoker.bench.run.plan import (
    FREE_SPACE_SHARE,
    FREE_SPACE_SHARE_MAX,
    Settings,
    check_room,
    default_processes,
    feed_draft,
    feed_files,
    file_bytes,
    least_files,
    training_plan,
)
from stoker.bench.run.record import RunRecord
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.target import (
    ASSUMED,
    WriteRate,
    child_url,
    dataset_of_ours,
    free_space_bytes,
    measure_write_rate,
    opened,
    unsynced_url,
)
from stoker.core.errors import CorruptError, InterruptedRunError, NotFoundError, StokerError, UsageError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, Job, TrainingPlan
from stoker.core.result import Result
from stoker.core.seed import run_id
from stoker.loader.dataset.generate import GenerateOptions
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.progress import Progress
from stoker.loader.dataset.recipe import Recipe, spec_facts
from stoker.loader.dataset.remove import remove
from stoker.storage.api import SupportsLocalPath, SupportsSweep

FOLDER: Final = "stoker-feed"
QUICK_LOOK: Final = "A quick look, not a submission: the dataset is sized by the time budget, not by the rules."
RUN_SHARE_GENERATED: Final = 0.5
RUN_SHARE_READY: Final = 0.85
_MATCHING: Final = (
    "format",
    "samples_per_file",
    "record_length_bytes",
    "record_length_stdev_bytes",
    "record_dims",
    "element_type",
    "options",
)


class FeedPlan(msgspec.Struct, frozen=True):
    """What `feed` will do: the training plan, where its data lies, and what must be generated first.

    `name` is the folder below `target` that holds the data, empty when a ready dataset at the target itself is read.
    A folder that is generated and not kept has a name that no other run uses.
    """

    training: TrainingPlan
    target: str
    name: str
    generate: bool
    keep: bool
    generate_bytes: float
    processes: int
    run_seconds: float
    budget_seconds: float
    write_bytes_per_second: float
    write_rate_measured: bool

    @property
    def url(self) -> str:
        """Return the URL of the data."""
        return child_url(self.target, self.name)


@dataclass(frozen=True)
class FeedWatchers:
    """Who is told what: generation and run progress, and warnings, one sentence each."""

    on_generate: Callable[[Progress], None] | None = None
    on_progress: Callable[[ProgressEvent], None] | None = None
    on_warning: Callable[[str], None] = lambda _: None


def plan_feed(settings: Settings, target: str, *, touch: bool) -> FeedPlan:
    """Decide everything. With `touch` the target is checked and its write rate measured, else that is assumed.

    Under MPI rank 0 alone touches the target: its plan is the one that all ranks follow.
    """
    draft = feed_draft(settings, target_url=redact_url(target))
    Recipe(draft.dataset)
    gather(
        lambda: require_launcher(draft),
        lambda: require_target(target, write=False),
        lambda: require_results(settings["results"].value),
    )
    kept = f"{FOLDER}-{draft.model}"
    _refuse_link(target, kept)
    notes: list[str] = []
    for name in ("", kept):
        dataset, reason = _ready_dataset(child_url(target, name), draft)
        if dataset is not None:
            return _feed_plan(settings, dataset, (target, name), None, notes)
        if reason and name and settings["keep"].value:
            _refuse_replacing(child_url(target, name), reason)
        notes += [f"The dataset at {redact_url(child_url(target, name))} was not used: {reason}."] if reason else []
    notes += _left_behind(target, kept)
    name = kept if settings["keep"].value else f"{kept}-{run_id()[:6]}"
    return _plan_generation(settings, (target, name), draft, notes, touch=touch and is_first_rank())


def _refuse_link(target: str, name: str) -> None:
    """Raise UsageError when a symbolic link stands where the data would lie: it may lead out of the target."""
    with opened(target) as store:
        if isinstance(store, SupportsLocalPath) and (Path(store.root) / name).is_symlink():
            raise UsageError("a symbolic link stands where the data would lie", where=f"{store.url}/{name}")


def _ready_dataset(url: str, draft: TrainingPlan) -> tuple[DatasetSpec | None, str]:
    """Return the spec of a dataset of ours at `url` that serves the asked model, or why the one there does not."""
    try:
        found = dataset_of_ours(url)
    except NotFoundError:
        return None, "its generation was not completed"
    except CorruptError as error:
        return None, str(error)
    if found is None:
        return None, ""
    wanted, there = spec_facts(draft.dataset), spec_facts(found)
    differing = [name for name in _MATCHING if wanted[name] != there[name]]
    if differing:
        told = ", ".join(f"{name} {there[name]!r} instead of {wanted[name]!r}" for name in differing)
        return None, f"it is not that of {draft.model} ({told})"
    least = least_files(draft)
    if found.files < least:
        return None, f"it is too small, {found.files} files where {least} are needed"
    return found, ""


def _left_behind(target: str, kept: str) -> list[str]:
    """Return a remark on data of another run that was killed, or that is still running."""
    with opened(target) as store:
        first = next(iter(store.list(f"{kept}-")), None)
    if first is None:
        return []
    url = redact_url(child_url(target, first.key.partition("/")[0]))
    return [f"Data of another feed lies at {url}; unless one is running, remove it with: stoker gen {url} --remove"]


def _refuse_replacing(url: str, reason: str) -> None:
    shown = redact_url(url)
    raise UsageError(
        f"a dataset that was kept before is in the way, and {reason}",
        where=shown,
        remedy=f"remove it with: stoker gen {shown} --remove",
    )


def _plan_generation(
    settings: Settings, place: tuple[str, str], draft: TrainingPlan, notes: list[str], *, touch: bool
) -> FeedPlan:
    """Decide how much to generate; what cannot work is refused before a byte is written."""
    size_max = settings["size_max"].value
    if size_max:
        check_room(draft, space_bytes=size_max, got="allowed by --size-max")
    free_bytes = free_space_bytes(place[0])
    check_room(draft, space_bytes=free_bytes * FREE_SPACE_SHARE_MAX, got="free")
    rate = ASSUMED
    if touch:
        require_target(place[0], write=True)
        rate = measure_write_rate(place[0], draft.dataset)
    files = feed_files(
        draft,
        budget_seconds=settings["budget"].value,
        write_bytes_per_second=rate.bytes_per_second,
        space_bytes=min(size_max or free_bytes * FREE_SPACE_SHARE, free_bytes * FREE_SPACE_SHARE_MAX),
    )
    return _feed_plan(settings, msgspec.structs.replace(draft.dataset, files=files), place, rate, notes)


def _feed_plan(
    settings: Settings, dataset: DatasetSpec, place: tuple[str, str], rate: WriteRate | None, notes: list[str]
) -> FeedPlan:
    """Return the plan; `rate` is None for a dataset that is there."""
    plan = training_plan(settings, dataset, target_url=redact_url(child_url(*place)))
    budget_seconds = settings["budget"].value
    run_seconds = float(math.floor(budget_seconds * (RUN_SHARE_GENERATED if rate else RUN_SHARE_READY)))
    told = (*plan.notes, *notes, QUICK_LOOK)
    return FeedPlan(
        training=msgspec.structs.replace(plan, epochs=0, duration_seconds=run_seconds, notes=told),
        target=place[0],
        name=place[1],
        generate=rate is not None,
        keep=settings["keep"].value,
        generate_bytes=dataset.files * file_bytes(dataset) if rate else 0.0,
        processes=default_processes(dataset),
        run_seconds=run_seconds,
        budget_seconds=budget_seconds,
        write_bytes_per_second=rate.bytes_per_second if rate else 0.0,
        write_rate_measured=rate.measured if rate else False,
    )


def run_feed(job: Job, plan: FeedPlan, folder: Path, watchers: FeedWatchers) -> Result:
    """Do what the plan says and return the saved result; a generated dataset is removed again unless it is kept.

    A signal during the generation leaves a partial result too. Raises what generation, run and store raise.
    """
    ours, made = plan.generate and is_first_rank(), False
    try:
        if ours:
            reason = _generate(plan, watchers.on_generate)
            if reason:
                return _never_ran(job, plan, folder, reason)
            made = True
        return conduct(job, plan.training, plan.url, folder, progress=watchers.on_progress)
    finally:
        if ours and not (made and plan.keep):
            _remove_generated(plan, watchers.on_warning)


def _generate(plan: FeedPlan, on_generate: Callable[[Progress], None] | None) -> str:
    """Make the dataset; return why it was stopped meanwhile, an empty text when it was not."""
    dataset = plan.training.dataset
    try:
        generate_parallel(plan.url, dataset, GenerateOptions(), processes=plan.processes, progress=on_generate)
    except InterruptedRunError as stopped:
        return f"{stopped.what} while the dataset was generated"
    return ""


def _never_ran(job: Job, plan: FeedPlan, folder: Path, reason: str) -> Result:
    """Save the result of a run that was stopped before its first step."""
    with SignalWatch():
        record = RunRecord(job, plan.training, redact_url(plan.url), folder, launcher="none was started")
        return record.finish("partial", reason, ())


def _remove_generated(plan: FeedPlan, on_warning: Callable[[str], None]) -> None:
    """Remove the dataset and its folder. A signal meanwhile does not keep that from being finished."""
    try:
        with SignalWatch():
            # Without a marker it was stopped before anything was put: nothing there is ours.
            with suppress(UsageError, NotFoundError), opened(unsynced_url(plan.url)) as store:
                remove(store, "train")
            with opened(plan.target) as store:
                if isinstance(store, SupportsSweep):
                    store.sweep(plan.name)
    except StokerError as error:
        on_warning(f"generated data could not be removed: {error}; try: stoker gen {redact_url(plan.url)} --remove")
