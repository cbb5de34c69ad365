"""`stoker dlio`."""

from typing import Any

import click

from stoker.bench.run.dlio_run import DlioJob, DlioOutcome, Watchers, run_dlio
from stoker.bench.run.hosts.control import tell_progress
from stoker.bench.run.hosts.events import generation_event
from stoker.bench.run.launch_mpi import choose_launcher, is_first_rank
from stoker.bench.run.telling import ProgressEvent
from stoker.cli.live import Live, live
from stoker.cli.plan import show_plan
from stoker.cli.report import finish
from stoker.cli.screen import emit_json, emit_text, warn
from stoker.core.errors import EXIT_GOOD
from stoker.core.host_series import SAMPLES_MAX
from stoker.loader.dataset.progress import Progress


def _told(outcome: DlioOutcome, job: DlioJob, *, as_json: bool) -> int:
    """Print what one run of the command line did and return its exit code."""
    if outcome.text:
        emit_text(outcome.text)
        return EXIT_GOOD
    if outcome.result is not None:
        click.echo(f"dlio files: {outcome.output_folder}", err=True)
        return finish(outcome.result, outcome.run_folder, as_json=as_json)
    if job.dry_run and outcome.plan is not None:
        return show_plan(outcome.plan, {"data": outcome.data_url}, document=outcome.plan, as_json=as_json)
    if as_json:
        emit_json({"data_url": outcome.data_url, "generated": outcome.generated})
    else:
        emit_text(f"generated {sum(outcome.generated.values())} files at {outcome.data_url}")
    return EXIT_GOOD


def _show(shown: Live, event: ProgressEvent) -> None:
    """Show how far the run is, here and where a command of ours started this one."""
    shown.run(event)
    if choose_launcher("auto")[0] == "local":  # the ranks of MPI tell it themselves
        tell_progress(event)


def _show_made(shown: Live, event: Progress) -> None:
    """Show how far a dataset is, here and where a command of ours started this one."""
    shown.generate(event)
    tell_progress(
        generation_event(
            event.files_done,
            event.files_total,
            bytes_per_second=event.bytes_per_second,
            elapsed_seconds=event.elapsed_seconds,
            left_seconds=event.eta_seconds,
        )
    )


@click.command("dlio", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[workload=NAME] [++workload.KEY=VALUE]...")
@click.option(
    "--ranks", type=click.IntRange(1, 1 << 20), default=None, help="Emulated accelerators as local processes."
)
@click.option("--strict", is_flag=True, help="An unknown, misspelt or idle key is an error, not a warning.")
@click.option(
    "--dlio-metrics",
    type=click.Choice(["correct", "compatible"]),
    default="correct",
    show_default=True,
    help="Which figures fill DLIO's keys: ours, or those by DLIO's own formulas.",
)
@click.option("--run-folder", default="", metavar="DIR", help="Folder for our own files; below DLIO's when not given.")
@click.option(
    "--access-seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=None,
    help="Seed of a shuffle, instead of the workload's train.seed.",
)
@click.option(
    "--host-interval",
    type=click.FloatRange(0, 3600),
    default=None,
    help="Seconds between samples of the hosts' counters; 0 samples none.  [default: 10]",
)
@click.option(
    "--host-samples",
    type=click.IntRange(2, SAMPLES_MAX),
    default=None,
    help=f"Most samples kept of a host: every second one goes when there are more.  [default: {SAMPLES_MAX}]",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and touch nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run.")
def command(words: tuple[str, ...], quiet: bool, as_json: bool, **given: Any) -> int:
    """Run a DLIO workload with DLIO's own words: workload=NAME, ++workload.section.key=value, --config-dir DIR.

    The shipped workloads go by DLIO's names. Beside our result the output files are DLIO's: summary.json, the per-rank
    files and the configuration folder. Under mpirun every MPI rank is an accelerator.
    """
    job = DlioJob(words=words, **given)
    with live(quiet=quiet or as_json) as shown:
        outcomes = run_dlio(
            job, Watchers(lambda event: _show_made(shown, event), lambda event: _show(shown, event), warn)
        )
    if not is_first_rank():
        return EXIT_GOOD
    return max((_told(outcome, job, as_json=as_json) for outcome in outcomes), default=EXIT_GOOD)
