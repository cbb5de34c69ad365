"""`dlio`: from the words of DLIO's command line to generated data, a run, and DLIO's output files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker.bench.report.dlio_files import write_dlio_files, write_hydra_files
from stoker.bench.run.conduct import ProgressEvent, conduct
from stoker.bench.run.dlio import DlioConfig, DlioRun, apply_credentials, compose, query, resolve, to_plan
from stoker.bench.run.folders import new_run_folder
from stoker.bench.run.launch_mpi import choose_launcher, is_first_rank
from stoker.bench.run.plan import default_processes
from stoker.bench.run.target import opened
from stoker.core.errors import UsageError
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import Result
from stoker.loader.dataset.generate import GenerateOptions
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.progress import OnProgress
from stoker.loader.dataset.remove import remove

RUN_FOLDER: Final = "stoker"


@dataclass(frozen=True)
class DlioJob:
    """What was asked: DLIO's words, and our own few options. `ranks` is None when MPI, or 1, decides."""

    words: Sequence[str]
    ranks: int | None = None
    strict: bool = False
    dlio_metrics: str = "correct"
    dry_run: bool = False


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

    Under MPI every rank calls this; rank 0 alone generates and writes files.
    """
    return [_run_one(job, resolve(composition, strict=job.strict), watchers) for composition in compose(job.words)]


def _run_one(job: DlioJob, config: DlioConfig, watchers: Watchers) -> DlioOutcome:
    if config.given("workflow.query"):
        return DlioOutcome(text=query(config))
    run = to_plan(config, _ranks(job), cpus=len(os.sched_getaffinity(0)))
    output_folder = Path(run.places.folder)
    outcome = DlioOutcome(run.plan, run.plan.target_url, output_folder, output_folder / RUN_FOLDER)
    first = is_first_rank()
    if first:
        for warning in run.warnings:
            watchers.on_warning(warning)
    run.require_work()
    if job.dry_run:
        return outcome
    apply_credentials(run.credentials)
    if run.generate and first:
        outcome.generated = _generate(run, watchers.on_generate)
    if run.train:
        _train(job, config, run, outcome, watchers)
    if not run.keep_files and first:
        _remove(run)
    return outcome


def _ranks(job: DlioJob) -> int:
    launcher, found = choose_launcher("auto")
    if launcher == "mpi" and found is not None and found.size is not None:
        if job.ranks not in (None, found.size):
            raise UsageError("--ranks under an MPI launcher", expected=str(found.size), got=str(job.ranks))
        return found.size
    return job.ranks or 1


def _generate(run: DlioRun, on_generate: OnProgress | None) -> dict[str, int]:
    """Make every split that is asked for; return the files made by split. What is there already is kept."""
    made = {}
    for spec, files_before in run.datasets:
        options = GenerateOptions(files_before=files_before)
        processes = default_processes(spec)
        report = generate_parallel(run.data_url, spec, options, processes=processes, progress=on_generate)
        made[spec.split] = report.files_made
    return made


def _train(job: DlioJob, config: DlioConfig, run: DlioRun, outcome: DlioOutcome, watchers: Watchers) -> None:
    first = is_first_rank()
    folder = outcome.run_folder
    if first and folder.exists():
        folder = new_run_folder(outcome.output_folder, RUN_FOLDER)
    elif first:
        folder.mkdir(parents=True)
    asked = Job("dlio", config.composition.overrides, config.settings())
    result = conduct(asked, run.plan, run.data_url, folder, progress=watchers.on_progress)
    outcome.result, outcome.run_folder = result, folder
    if first:
        write_dlio_files(folder, outcome.output_folder, metrics=job.dlio_metrics, log_file=run.places.log_file)
        if run.places.hydra_subdir:
            write_hydra_files(Path(run.places.hydra_folder) / run.places.hydra_subdir, run.documents)


def _remove(run: DlioRun) -> None:
    with opened(run.data_url) as store:
        for spec, _ in run.datasets:
            remove(store, spec.split)
