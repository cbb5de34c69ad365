"""`stoker mlperf history`: the command lines of a results directory, and typing one again."""

import os
import shlex

import click
import msgspec

from stoker.cli.groups import OrderedGroup
from stoker.cli.mlperf_common import HELP, RecordsCommand, as_json_option, dry_run_option, results_dir_option, say
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.errors import EXIT_GOOD


@click.group("history", cls=OrderedGroup, context_settings=HELP)
def history() -> None:
    """Command lines that were run, and running one again."""


@history.command("show", cls=RecordsCommand, context_settings=HELP, short_help="Command lines, the oldest first.")
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("--id", "-i", "wanted", metavar="ID", help="Only this one.")
@results_dir_option
@as_json_option
def show(limit: int | None, wanted: str | None, results_dir: str | None, as_json: bool) -> int:
    """Show the command lines, the oldest first: id, time (UTC), what was typed. Secrets were never kept."""
    from stoker.bench.run.mlperf.journal import read_history
    from stoker.bench.run.mlperf.replaying import line_of
    from stoker.bench.run.mlperf.results_dir import open_results

    results = open_results(results_dir, os.environ)
    lines = [line_of(results, wanted)] if wanted is not None else read_history(results.root)
    lines = lines[-limit:] if limit is not None else lines
    if as_json:
        emit_json({"results_dir": str(results.root), "history": [msgspec.to_builtins(line) for line in lines]})
    else:
        width = max((len(line.id) for line in lines), default=0)
        told = (f"{line.id:>{width}}  {line.at[:19]}Z  stoker {shlex.join(line.words)}" for line in lines)
        emit_text("\n".join(map(harmless, told)) or "no command lines yet")
    return EXIT_GOOD


@history.command("rerun", cls=RecordsCommand, context_settings=HELP, short_help="Run a command line again.")
@click.argument("run", metavar="ID")
@dry_run_option
@results_dir_option
def rerun(run: str, dry_run: bool, results_dir: str | None) -> int:
    """Run a command line again, word for word, in the folder where it was typed.

    The environment is that of now. A line that held a secret is not run again: the secret was not kept.
    """
    from stoker.bench.run.mlperf.replaying import replay, told_for_replay
    from stoker.bench.run.mlperf.results_dir import open_results

    line = told_for_replay(open_results(results_dir, os.environ), run)
    told = f"in {harmless(line.cwd)}: stoker {harmless(shlex.join(line.words))}"
    if dry_run:
        emit_text(told)
        return EXIT_GOOD
    say("INFO", told)
    return replay(line)
