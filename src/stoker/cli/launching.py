"""A command on many hosts: start it there and end as it ends, or show how it would be started."""

import os
import shlex
import sys
from pathlib import Path

import click

from stoker.bench.run.hosts.judging import failed
from stoker.bench.run.hosts.preflight import examine_hosts
from stoker.bench.run.hosts.start import Ended, Launch, plan_launch, rank_program, start_ranks
from stoker.bench.run.plan import Settings, feed_draft, file_bytes, least_files, workload_entry
from stoker.bench.run.recover import load_or_recover
from stoker.cli.live import live
from stoker.cli.screen import emit_pairs, harmless, warn
from stoker.core import clock
from stoker.core.errors import EXIT_GOOD, PreflightError
from stoker.core.files import redact_arguments
from stoker.core.units import format_seconds


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
    warnings = _preflight(planned, target, needed_bytes, quiet=quiet)
    with live(quiet=quiet) as shown:
        deadline_seconds = settings["rank_deadline"].value
        ended = start_ranks(planned, arguments, deadline_seconds=deadline_seconds, on_progress=shown.run)
    for warning in warnings:
        warn(f"before the run: {warning}")
    return _finish(ended)


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


def _preflight(planned: Launch, target: str, needed_bytes: int, *, quiet: bool) -> list[str]:
    """Try everything; tell the warnings and return them, for they are told again at the end."""
    began_ns = clock.monotonic_ns()
    if not quiet:
        click.echo(f"1/2 checking {len(planned.hosts)} hosts", err=True)
    place = target if "://" in target else os.path.abspath(target)  # noqa: PTH100 - Path.absolute keeps `..`
    checks = examine_hosts(planned.hosts, place, needed_bytes=needed_bytes, launch=planned)
    warnings = [
        f"{check.name}: {check.observed}" + (f"; {check.remedy}" if check.remedy else "")
        for check in checks
        if check.status == "warn"
    ]
    for warning in warnings:
        warn(warning)
    bad = failed(checks)
    if bad:
        told = "; ".join(f"{check.name}: {check.observed}" for check in bad)
        remedies = "; ".join(dict.fromkeys(check.remedy for check in bad if check.remedy))
        raise PreflightError(
            f"{len(bad)} of {len(checks)} checks failed, so no rank was started", got=told, remedy=remedies
        )
    if not quiet:
        spent = format_seconds((clock.monotonic_ns() - began_ns) / 1e9)
        ranks = sum(host.slots for host in planned.hosts)
        click.echo(f"2/2 {len(checks)} checks done in {spent}; starting {ranks} ranks", err=True)
    return warnings
