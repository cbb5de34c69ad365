"""`stoker run vectordb`."""

import sys
from typing import Any

import click

from stoker.bench.run.conduct import ProgressEvent
from stoker.bench.run.doctor import require_launcher
from stoker.bench.run.gathered import gather, require_results
from stoker.bench.run.hosts.control import tell_folder, tell_progress
from stoker.bench.run.hosts.start import launch_wanted
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.vectordb import Watching, run_vectordb
from stoker.bench.run.vectors.options import VECTORDB
from stoker.bench.run.vectors.places import place_of
from stoker.bench.run.vectors.planning import plan_vectors
from stoker.cli.launching import launch
from stoker.cli.live import Live, live
from stoker.cli.plan import show_plan
from stoker.cli.report import finish
from stoker.cli.rows import job_from, settings_from, with_rows
from stoker.core.errors import EXIT_GOOD


@click.command("vectordb")
@click.argument("target")
@with_rows(VECTORDB)
@click.option("--dry-run", is_flag=True, help="Print the plan and run nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a result.")
def command(target: str, config: str | None, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> int:
    """Search a collection of vectors, as MLPerf Storage has it, and tell how true the answers were.

    TARGET is milvus://HOST:PORT, postgresql://HOST:PORT/DATABASE, or a folder for Milvus Lite. The vectors are made
    from a seed and loaded unless they are there. Every process that queries is a rank.
    """
    settings = settings_from(VECTORDB, given, config)
    placed = place_of(target)
    plan = plan_vectors(settings, placed)
    if launch_wanted(settings):
        quietly = quiet or as_json
        return launch(settings, "", dry_run=dry_run, quiet=quietly, ranks=plan.ranks, needed_bytes=0)
    gather(lambda: require_launcher(plan), lambda: require_results(settings["results"].value))
    if dry_run:
        return show_plan(plan, {}, document=plan, as_json=as_json)
    with live(quiet=quiet or as_json) as shown:

        def say(text: str) -> None:
            if not (quiet or as_json):
                sys.stderr.write(f"{text}\n")

        watching = Watching(lambda event: _show(shown, event), say)
        ran = run_vectordb(job_from("run vectordb", settings), settings, plan, placed, watching)
    for each in ran:
        tell_folder(each.folder)
    return max((finish(each.result, each.folder, as_json=as_json) for each in ran), default=EXIT_GOOD)


def _show(shown: Live, event: ProgressEvent) -> None:
    """Show how far the run is, here and where a command of ours started this one."""
    shown.run(event)
    if choose_launcher("auto")[0] == "local":
        tell_progress(event)
