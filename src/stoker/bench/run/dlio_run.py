"""`dlio`: from the words of DLIO's command line to generated data, a run, and DLIO's output files."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.report.dlio_files import write_dlio_files, write_hydra_files
from stoker.bench.run.checkpoint import require_checkpoint_target, require_room, seen_to_read
from stoker.bench.run.conduct import ProgressEvent, conduct
from stoker.bench.run.credentials import apply_credentials
from stoker.bench.run.dlio import DlioConfig, DlioRun, compose, query, resolve, to_plan
from stoker.bench.run.dlio.datasets import TRAIN, VALID
from stoker.bench.run.doctor import require_target
from stoker.bench.run.folders import make_run_folder, new_run_folder, results_kept_in
from stoker.bench.run.launch_mpi import choose_launcher, is_first_rank
from stoker.bench.run.plan import default_processes
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.target import opened
from stoker.bench.workloads.source import dataset_manifest
from stoker.core.errors import NotFoundError, PreflightError, StokerError, UsageError
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import Result
from stoker.loader.dataset.generate import GenerateOptions
from stoker.loader.dataset.parallel import PROCESSES_MAX, generate_parallel
from stoker.loader.dataset.progress import OnProgress
from stoker.loader.dataset.remove import remove
from stoker.storage.api import Store, SupportsLocalPath

RUN_FOLDER: Final = "stoker"


@dataclass(frozen=True)
class DlioJob:
    """What was asked: DLIO's words, and our own few options. `ranks` is None when MPI, or 1, decides.

    `run_folder` is where our own files go instead of below DLIO's; `access_seed` replaces the seed of a shuffle.
    `host_interval` are the seconds between samples of the hosts (0 samples none), of which `host_samples` are kept.
    A generation without training takes `ranks` processes.
    """

    words: Sequence[str]
    ranks: int | None = None
    strict: bool = False
    dlio_metrics: str = "correct"
    dry_run: bool = False
    run_folder: str = ""
    access_seed: int | None = None
    host_interval: float | None = None
    host_samples: int | None = None


@dataclass(frozen=True)
class Watchers:
    """Who is told what: generation and run progress, and warnings, one sentence each."""

    on_generate: OnProgress | None = None
    on_progress: Callable[[ProgressEvent], None] | None = None
    on_warning: Callable[[str], None] = lambda _: None


@dataclass
class DlioOutcome:
    """What one run of the command line did. `text` is the answer to a query; `result` is None when nothing was run."""

    plan: TrainingPlan | None = None
    data_url: str = ""
    output_folder: Path = Path()
    run_folder: Path = Path()
    generated: dict[str, int] = field(default_factory=dict)
    result: Result | None = None
    text: str = ""


def run_dlio(job: DlioJob, watchers: Watchers) -> list[DlioOutcome]:
    """Do what DLIO's words say, once for each run of a sweep, and return what was done.

    Under MPI every rank calls this; rank 0 alone generates and writes files. A run that was cut short ends the sweep.
    """
    outcomes = []
    for composition in compose(job.words):
        outcome = _run_one(job, resolve(composition, strict=job.strict), watchers)
        outcomes.append(outcome)
        if outcome.result is not None and outcome.result.status == "partial":
            break
    return outcomes


def _run_one(job: DlioJob, config: DlioConfig, watchers: Watchers) -> DlioOutcome:
    if config.given("workflow.query"):
        return DlioOutcome(text=query(config))
    run = _asked(job, to_plan(config, _ranks(job), cpus=len(os.sched_getaffinity(0))))
    output_folder = Path(run.places.folder)
    run_folder = Path(job.run_folder) if job.run_folder else output_folder / RUN_FOLDER
    outcome = DlioOutcome(run.plan, run.plan.target_url, output_folder, run_folder)
    first = is_first_rank()
    if first:
        for warning in run.warnings:
            watchers.on_warning(warning)
    run.require_work()
    if job.dry_run:
        return outcome
    apply_credentials(run.credentials)
    try:
        if first:
            _prepare(job, run, outcome, watchers)
        if run.train or run.checkpoint:
            _conduct(job, config, run, outcome, watchers)
    finally:
        if first and not run.keep_files and (run.generate or outcome.result is not None):
            _remove(run, watchers.on_warning)
    return outcome


def _asked(job: DlioJob, run: DlioRun) -> DlioRun:
    """Return the run with what our own options decide about its plan."""
    changes: dict[str, float] = {}
    if job.access_seed is not None and run.plan.order == "shuffled":
        changes["seed"] = job.access_seed
    if job.host_interval is not None:
        changes["host_interval_seconds"] = job.host_interval
    if job.host_samples is not None:
        changes["host_samples_max"] = job.host_samples
    return replace(run, plan=msgspec.structs.replace(run.plan, **changes)) if changes else run


def _ranks(job: DlioJob) -> int:
    launcher, found = choose_launcher("auto")
    if launcher == "mpi" and found is not None and found.size is not None:
        if job.ranks not in (None, found.size):
            raise UsageError("--ranks under an MPI launcher", expected=str(found.size), got=str(job.ranks))
        return found.size
    return job.ranks or 1


def _prepare(job: DlioJob, run: DlioRun, outcome: DlioOutcome, watchers: Watchers) -> None:
    """Do what comes before the run: Hydra's files, as Hydra writes them first of all, and the dataset."""
    if run.train and not run.generate:
        _require_dataset(run)
    if run.checkpoint:
        writes = run.train or run.plan.checkpoint is None or run.plan.checkpoint.writes > 0
        require_checkpoint_target(run.checkpoint_url, write=writes)
        if not run.train:
            require_room(run.plan, run.checkpoint_url)
    if run.places.hydra_subdir:
        write_hydra_files(Path(run.places.hydra_folder) / run.places.hydra_subdir, run.documents)
    if run.generate:
        outcome.generated = _generate(run, watchers.on_generate, None if run.train else job.ranks)


def _require_dataset(run: DlioRun) -> None:
    """Raise PreflightError, with the reason, unless the splits that will be read are there with enough files."""
    evaluation = run.plan.evaluation
    splits = [run.plan.dataset, *([evaluation.dataset] if evaluation is not None else [])]
    try:
        require_target(run.data_url, write=False)
        with opened(run.data_url) as store:
            for spec in splits:
                dataset_manifest(store, spec)
    except (NotFoundError, PreflightError) as error:
        if not isinstance(error, NotFoundError) and not isinstance(error.__cause__, NotFoundError):
            raise
        raise PreflightError(
            "dataset is not there",
            where=error.where,
            expected=" and ".join(f"{spec.files} {spec.format} files in {spec.split}/" for spec in splits),
            got=error.what,
            remedy="make it with ++workload.workflow.generate_data=True, or correct dataset.data_folder",
        ) from error


def _generate(run: DlioRun, on_generate: OnProgress | None, processes: int | None) -> dict[str, int]:
    """Make every split that is asked for; return the files made by split. What is there already is kept."""
    made = {}
    for spec, files_before in run.datasets:
        options = GenerateOptions(files_before=files_before)
        many = min(processes or default_processes(spec), PROCESSES_MAX)
        report = generate_parallel(run.data_url, spec, options, processes=many, progress=on_generate)
        made[spec.split] = report.files_made
    with opened(run.data_url) as store:
        for folder in _split_folders(store):
            folder.mkdir(exist_ok=True)
    return made


def _split_folders(store: Store) -> list[Path]:
    """Return the local folders of the splits: DLIO lists both, so it needs the one without files as well."""
    return [Path(store.root) / split for split in (TRAIN, VALID)] if isinstance(store, SupportsLocalPath) else []


def _conduct(job: DlioJob, config: DlioConfig, run: DlioRun, outcome: DlioOutcome, watchers: Watchers) -> None:
    first = is_first_rank()
    folder = outcome.run_folder
    if first:
        there = folder.exists()
        folder = new_run_folder(folder.parent, folder.name) if there else make_run_folder(folder)
    asked = Job("dlio", config.composition.overrides, config.settings())
    with results_kept_in(folder):
        url = run.data_url if run.train else run.checkpoint_url
        plan = run.plan if run.train else seen_to_read(run.plan, url)
        result = conduct(asked, plan, url, folder, progress=watchers.on_progress)
        outcome.result, outcome.run_folder = result, folder
        if first:
            write_dlio_files(folder, outcome.output_folder, metrics=job.dlio_metrics, log_file=run.places.log_file)


def _remove(run: DlioRun, on_warning: Callable[[str], None]) -> None:
    """Remove what a marker says is ours; what is not, or cannot be removed, is told of."""
    try:
        with SignalWatch(), opened(run.data_url) as store:
            for spec, _ in run.datasets:
                remove(store, spec.split)
            for folder in _split_folders(store) if run.generate else []:
                with suppress(OSError):
                    folder.rmdir()
    except StokerError as error:
        on_warning(f"keep_files is off, but the data stays: {error}")
