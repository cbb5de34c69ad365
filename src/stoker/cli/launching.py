"""A command on many hosts: start it there and end as it ends, or show how it would be started."""

import os
import shlex
import sys
from pathlib import Path

import click

from stoker.bench.run.hosts.require import require_hosts
from stoker.bench.run.hosts.start import Ended, Launch, plan_launch, rank_program, start_ranks
from stoker.bench.run.plan import Settings, feed_draft, file_bytes, least_files, workload_entry
from stoker.bench.run.recover import load_or_recover
from stoker.bench.run.stages import Say, Stages
from stoker.cli.live import live
from stoker.cli.screen import emit_pairs, harmless, warn
from stoker.core.errors import EXIT_GOOD
from stoker.core.files import redact_arguments


def launch(
    settings: Settings, target: str, *, dry_run: bool, quiet: bool, ranks: int = 0, needed_bytes: int | None = None
) -> int:
    """Start this very command on the hosts asked for, and return its exit code; with `dry_run` print how.

    `ranks` and `needed_bytes` follow from a training's settings where they are not told. Before, everything is tried.
    Raises PreflightError with all that failed; warnings go to stderr.
    """
    ranks = ranks or workload_entry(settings)[1]
    needed_bytes = _needed_bytes(settings) if needed_bytes is None else needed_bytes
    planned = plan_launch(settings, ranks)
    arguments = sys.argv[1:]
    if dry_run:
        words = planned.words(rank_program(redact_arguments(arguments)), os.environ)
        hosts = ", ".join(f"{host.name} {host.slots}" for host in planned.hosts)
        emit_pairs({"launcher": planned.launcher.told, "ranks": f"{ranks}: {hosts}", "command": shlex.join(words)})
        return EXIT_GOOD
    ranks_told = f"starting {ranks} ranks"
    with Stages((f"checking {len(planned.hosts)} hosts", ranks_told), _say(quiet=quiet), warn) as stages:
        with stages.stage(1):
            _preflight(planned, target, needed_bytes, stages)
        stages.begin(2)
        with live(quiet=quiet) as shown:
            deadline_seconds = settings["rank_deadline"].value
            ended = start_ranks(planned, arguments, deadline_seconds=deadline_seconds, on_progress=shown.run)
    return _finish(ended)


def _say(*, quiet: bool) -> Say:
    return lambda text: None if quiet else click.echo(text, err=True)


def _finish(ended: Ended) -> int:
    """Return the exit code; of ranks that did not come to say how it ended, tell why and keep what they measured."""
    if ended.told:
        return ended.exit_code
    kept = ""
    folder = Path(ended.folder)
    if ended.folder and folder.is_dir():
        result = load_or_recover(folder)
        kept = f"what was measured is kept, labelled {result.status}, in {folder}"
        reason = result.reason if result.status == "failed" else ended.reason
    else:
        reason = ended.reason
        kept = f"what was measured lies on the first host in {folder}" if ended.folder else ""
    click.echo(
        f"stoker: the run ended before its time: {harmless(reason)}{f'; {harmless(kept)}' if kept else ''}", err=True
    )
    return ended.exit_code


def _needed_bytes(settings: Settings) -> int:
    """Return the bytes of the smallest dataset that `feed` may have to write; a run of a ready dataset writes none."""
    if "size_max" not in settings:
        return 0
    draft = feed_draft(settings, target_url="")
    return round(least_files(draft) * file_bytes(draft.dataset))


def _preflight(planned: Launch, target: str, needed_bytes: int, stages: Stages) -> None:
    """Try everything on all hosts. Raises PreflightError with what failed."""
    place = target if "://" in target or not target else os.path.abspath(target)  # noqa: PTH100 - Path.absolute keeps `..`
    require_hosts(planned.hosts, place, needed_bytes, stages.warn, launch=planned)
