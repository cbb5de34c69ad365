"""`stoker run`."""

from pathlib import Path
from typing import Any

import click

from stoker.bench.run.checkpoint import (
    model_of,
    plan_checkpointing,
    remove_all,
    require_checkpoint_target,
    require_room,
)
from stoker.bench.run.conduct import check_plan, conduct
from stoker.bench.run.doctor import require_launcher, require_target
from stoker.bench.run.folders import make_run_folder, new_run_folder, results_kept_in
from stoker.bench.run.gathered import gather, require_results
from stoker.bench.run.hosts.control import tell_progress
from stoker.bench.run.hosts.events import ProgressEvent
from stoker.bench.run.hosts.start import launch_wanted
from stoker.bench.run.kvcache import (
    kv_url,
    plan_kvcache,
    require_kv_memory,
    require_kv_target,
    require_trace_place,
)
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.options import CHECKPOINTING, KVCACHE, TRAINING
from stoker.bench.run.target import synced_url
from stoker.bench.run.train import plan_training
from stoker.cli.groups import NearestGroup
from stoker.cli.launching import launch
from stoker.cli.live import Live, live
from stoker.cli.plan import show_plan
from stoker.cli.report import finish
from stoker.cli.rows import job_from, settings_from, with_rows
from stoker.cli.screen import emit_json, emit_text
from stoker.cli.vectordb import command as vectordb
from stoker.core.errors import EXIT_GOOD


@click.group("run", cls=NearestGroup)
def command() -> None:
    """Run a workload against storage that holds its dataset."""


@command.command("training")
@click.argument("target")
@with_rows(TRAINING)
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def training(target: str, config: str | None, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> int:
    """Emulate the training of a model: every accelerator is a rank that reads TARGET through the loader.

    TARGET holds a dataset made by `stoker gen`, or a foreign one when --format is given. Ranks are local processes,
    or MPI ranks under mpirun.
    """
    settings = settings_from(TRAINING, given, config)
    if launch_wanted(settings):
        return launch(settings, target, dry_run=dry_run, quiet=quiet or as_json)
    gather(lambda: require_target(target, write=False), lambda: require_results(settings["results"].value))
    plan = plan_training(settings, target)
    require_launcher(plan)
    if dry_run:
        return show_plan(plan, {}, document=plan, as_json=as_json)
    folder = new_run_folder(settings["results"].value, f"training-{plan.model}")
    with results_kept_in(folder):
        with live(quiet=quiet or as_json) as shown:
            result = conduct(job_from("run training", settings), plan, target, folder, progress=shown.run)
        return finish(result, folder, as_json=as_json)


command.add_command(vectordb)


@command.command("checkpointing")
@click.argument("target")
@with_rows(CHECKPOINTING)
@click.option("--remove", is_flag=True, help="Remove the model's checkpoints that we made here, and nothing else.")
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def checkpointing(
    target: str, config: str | None, remove: bool, dry_run: bool, quiet: bool, as_json: bool, **given: Any
) -> int:
    """Write and read the checkpoints of a model: every rank its share, as MLPerf Storage has it.

    TARGET is a folder or a URL; the checkpoints lie below it in a folder named after the model. Ranks are local
    processes, or MPI ranks under mpirun.
    """
    settings = settings_from(CHECKPOINTING, given, config)
    if remove:
        return _remove(target, model_of(settings)[0], as_json=as_json)
    plan = plan_checkpointing(settings, None) if launch_wanted(settings) else None
    if plan is not None:
        needed = round(plan.predicted["room_bytes"])
        shown_quiet = quiet or as_json
        return launch(settings, target, dry_run=dry_run, quiet=shown_quiet, ranks=plan.ranks, needed_bytes=needed)
    url = synced_url(target, settings["fsync"].value)
    writes = settings["num_checkpoints_write"].value > 0
    gather(
        lambda: None if dry_run and writes else require_checkpoint_target(url, write=writes),
        lambda: require_results(settings["results"].value),
    )
    plan = plan_checkpointing(settings, url)
    check_plan(plan)
    require_launcher(plan)
    if dry_run:
        return show_plan(plan, {}, document=plan, as_json=as_json)
    require_room(plan, url)
    folder = new_run_folder(settings["results"].value, f"checkpointing-{plan.model}")
    with results_kept_in(folder):
        with live(quiet=quiet or as_json) as shown:
            result = conduct(job_from("run checkpointing", settings), plan, url, folder, progress=shown.run)
        return finish(result, folder, as_json=as_json)


@command.command("kvcache")
@click.argument("target")
@with_rows(KVCACHE)
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def kvcache(target: str, config: str | None, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> int:
    """Serve the KV cache of a language model to many users: tiers in memory, and TARGET as the storage below them.

    TARGET is a folder or a URL; each client keeps its entries below it in a folder `rank_<n>`, marked as ours, and
    removes them at the end. Clients are local processes, or MPI ranks under mpirun.
    """
    settings = settings_from(KVCACHE, given, config)
    url = kv_url(target)
    plan = plan_kvcache(settings, url)
    check_plan(plan)
    if launch_wanted(settings):
        return launch(settings, target, dry_run=dry_run, quiet=quiet or as_json, ranks=plan.ranks, needed_bytes=0)
    require_launcher(plan)
    if dry_run:
        return show_plan(plan, {}, document=plan, as_json=as_json)
    assert plan.kvcache is not None
    what = plan.kvcache
    gather(
        lambda: require_kv_target(url),
        lambda: require_kv_memory(plan),
        lambda: require_trace_place(what),
        lambda: require_results(settings["run_folder"].value or settings["results"].value),
    )
    own = settings["run_folder"].value
    folder = make_run_folder(Path(own)) if own else new_run_folder(settings["results"].value, f"kvcache-{plan.model}")
    with results_kept_in(folder):
        with live(quiet=quiet or as_json) as shown:
            job = job_from("run kvcache", settings)
            result = conduct(job, plan, url, folder, progress=lambda event: _show(shown, event))
        return finish(result, folder, as_json=as_json)


def _show(shown: Live, event: ProgressEvent) -> None:
    """Show how far the run is, here and where a command of ours started this one."""
    shown.run(event)
    if choose_launcher("auto")[0] == "local":  # the ranks of MPI tell it themselves
        tell_progress(event)


def _remove(target: str, folder: str, *, as_json: bool) -> int:
    checkpoints, files = remove_all(target, folder)
    if as_json:
        emit_json({"checkpoints_removed": checkpoints, "files_removed": files})
    else:
        emit_text(f"removed {checkpoints} checkpoints, {files} files")
    return EXIT_GOOD
