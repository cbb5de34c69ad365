"""`stoker mlperf runs`: the runs of a results directory, listed, shown and removed."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from stoker.cli.groups import OrderedGroup
from stoker.cli.mlperf_common import (
    HELP,
    RecordsCommand,
    as_json_option,
    dry_run_option,
    results_dir_option,
    say,
    tell_foreseen,
)
from stoker.cli.screen import emit_json, emit_pairs, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, StokerError, UsageError
from stoker.core.units import format_bytes

if TYPE_CHECKING:
    from stoker.bench.run.mlperf.removing import Batch, TrashSize
    from stoker.bench.run.mlperf.runs import RunEntry

Function = TypeVar("Function", bound=Callable[..., Any])
_STATES: Final = ("complete", "failed", "incomplete")
_BENCHMARKS: Final = ("training", "checkpointing", "vectordb", "kvcache", "vector_database", "kv_cache")
_COLUMNS: Final = ("id", "status", "started", "mode", "benchmark", "model", "command", "system", "leaf")
_LISTED_MAX: Final = 20
yes_option = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")


@click.group("runs", cls=OrderedGroup, context_settings=HELP)
def runs() -> None:
    """Runs of a results directory: list, show, remove.

    What is removed goes to a batch of .mlps/trash in the results directory, until purge empties it.
    """


@runs.command("list", cls=RecordsCommand, context_settings=HELP, short_help="Runs, and leaves of other tools.")
@results_dir_option
@click.option("--mode", type=click.Choice(["closed", "open", "whatif"]), help="Only of this division.")
@click.option("--benchmark", type=click.Choice(_BENCHMARKS), help="Only of this workload.")
@click.option("--model", metavar="NAME", help="Only of this model, or index.")
@click.option("--systemname", "-sn", metavar="NAME", help="Only of this system.")
@click.option("--status", type=click.Choice(_STATES), help="Only those that ended so.")
@as_json_option
def list_command(results_dir: str | None, as_json: bool, **filters: str | None) -> int:
    """List the runs, the oldest first: those of the journal, and leaves that other tools made.

    A run that has no end in the journal is incomplete when its process is gone, running when it is there, and unknown
    when it was begun on another host. Leaves that the journal does not know have no id: their path names them.
    """
    from stoker.bench.run.mlperf.runs import chosen, find_root, list_runs

    root = find_root(results_dir, os.environ)
    wanted = {name: value or "" for name, value in filters.items()}
    found = chosen(
        list_runs(root),
        benchmark=wanted["benchmark"],
        division=wanted["mode"],
        model=wanted["model"],
        system=wanted["systemname"],
        status=wanted["status"],
    )
    if as_json:
        emit_json({"results_dir": str(root), "runs": [msgspec.to_builtins(each) for each in found]})
    else:
        emit_text(_table(found) if found else "no runs" + (" of that kind" if any(wanted.values()) else ""))
    return EXIT_GOOD


def _table(entries: Sequence["RunEntry"]) -> str:
    rows = [_COLUMNS, *(_row(each) for each in entries)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(each: "RunEntry") -> tuple[str, ...]:
    leaf = each.leaf if each.leaf_exists else f"{each.leaf} (gone)"
    cells = (each.id, each.status, each.started.replace("T", " "), each.division, each.family)
    return tuple(harmless(cell) or "-" for cell in (*cells, each.model, each.command, each.system, leaf))


@runs.command("show", cls=RecordsCommand, context_settings=HELP, short_help="All that is known of a run.")
@click.argument("run", metavar="ID")
@results_dir_option
@as_json_option
def show_command(run: str, results_dir: str | None, as_json: bool) -> int:
    """Show all that is known of a run: its command line, its leaf, how it ended, its figures.

    ID is the number of the list, or the path of a leaf, or the end of one.
    """
    from stoker.bench.run.mlperf.runs import find_root, show

    shown = show(find_root(results_dir, os.environ), run)
    if as_json:
        emit_json(msgspec.to_builtins(shown))
        return EXIT_GOOD
    emit_pairs(_pairs(shown))
    if shown.metrics:
        emit_text("")
        emit_pairs({harmless(name): str(value) for name, value in shown.metrics.items()})
    return EXIT_GOOD


def _pairs(shown: Any) -> dict[str, str]:
    from shlex import join

    each = shown.run
    ended = each.status if each.exit_code is None else f"{each.status}, exit code {each.exit_code}"
    told = {
        "run": each.name,
        "status": ended,
        "started": each.started.replace("T", " "),
        "took": "" if each.seconds is None else f"{each.seconds:g} s",
        "mode": each.division,
        "benchmark": each.family,
        "model": each.model,
        "command": each.command,
        "system": each.system,
        "host": each.host,
        "leaf": each.leaf if each.leaf_exists else f"{each.leaf} (gone)",
        "holds": f"{shown.files} files, {format_bytes(shown.bytes)}",
        "typed": f"stoker {join(shown.words)}" if shown.words else "",
        "in": shown.cwd,
        "executed": shown.executed_command,
    }
    return {name: text for name, text in told.items() if text}


# -- removing --------------------------------------------------------------------------------------------------------


@runs.command("rm", cls=RecordsCommand, context_settings=HELP, short_help="Move runs into the trash.")
@click.argument("ids", nargs=-1, metavar="[IDS]...")
@click.option("--status", type=click.Choice(_STATES), help="Those that ended so.")
@click.option("--older-than", metavar="AGE", help="Those begun before: 12h, 7d, 2w ago, or a date.")
@click.option(
    "--keep-last",
    type=click.IntRange(min=0),
    metavar="N",
    help="All but the newest N of each system, workload, model and command.",
)
@yes_option
@dry_run_option
@results_dir_option
@as_json_option
def rm_command(
    ids: tuple[str, ...], yes: bool, dry_run: bool, results_dir: str | None, as_json: bool, **conditions: Any
) -> int:
    """Move runs into the trash: those that IDS name, or those that all given conditions name.

    A run that is going on is never removed, and conditions do not touch one that was begun on another host and has no
    end. Rollups and manifests are not written anew: `reports reportgen` does that.
    """
    from stoker.bench.run.mlperf import removing
    from stoker.bench.run.mlperf.results_dir import open_results
    from stoker.bench.run.mlperf.runs import list_runs, named

    if bool(ids) == any(value is not None for value in conditions.values()):
        raise UsageError(
            "which runs?", expected="either IDS, or --status, --older-than, --keep-last", remedy="see runs list"
        )
    results = open_results(results_dir, os.environ)
    entries = list_runs(results.root)
    if ids:
        found = list({each.name: each for each in (named(entries, text) for text in ids)}.values())
    else:
        age = conditions["older_than"]
        found = removing.selected(
            entries,
            status=conditions["status"] or "",
            before=removing.older_than(age) if age is not None else "",
            keep_last=conditions["keep_last"],
        )
    if not found:
        _tell_batch(None, 0, "run", "no runs to remove", as_json=as_json)
        return EXIT_GOOD
    told = [f"{each.name}  {each.status}  {each.leaf}" for each in found]
    if not _agreed(
        f"move {_counted(len(found), 'run')} into the trash", told, yes=yes, dry_run=dry_run, as_json=as_json
    ):
        return EXIT_GOOD
    batch = removing.remove_runs(results, found)
    _tell_batch(batch, len(found), "run", "", as_json=as_json)
    say("WARNING", "rollups and manifests are as they were: `stoker mlperf reports reportgen` writes them anew")
    return EXIT_GOOD


@runs.command("purge", cls=RecordsCommand, context_settings=HELP, short_help="Empty the trash.")
@yes_option
@dry_run_option
@results_dir_option
@as_json_option
def purge_command(yes: bool, dry_run: bool, results_dir: str | None, as_json: bool) -> int:
    """Empty the trash: what runs rm and runs gc put there is gone for good."""
    from stoker.bench.run.mlperf.removing import purge, trash_size
    from stoker.bench.run.mlperf.results_dir import open_results

    results = open_results(results_dir, os.environ)
    found = trash_size(results)
    if not found.batches:
        _tell_purged(found, "the trash is empty", as_json=as_json)
        return EXIT_GOOD
    told = f"{_counted(found.batches, 'batch', 'batches')}, {found.files} files, {format_bytes(found.bytes)}"
    if not _agreed(f"remove for good what is in the trash: {told}", [], yes=yes, dry_run=dry_run, as_json=as_json):
        return EXIT_GOOD
    _tell_purged(purge(results), f"removed {told}", as_json=as_json)
    return EXIT_GOOD


@runs.command("gc", cls=RecordsCommand, context_settings=HELP, short_help="Move unused code images into the trash.")
@yes_option
@dry_run_option
@results_dir_option
@as_json_option
def gc_command(yes: bool, dry_run: bool, results_dir: str | None, as_json: bool) -> int:
    """Move code images that no run names, neither in the tree nor in the trash, into the trash."""
    from stoker.bench.run.mlperf.removing import remove_code, unused_code
    from stoker.bench.run.mlperf.results_dir import open_results

    results = open_results(results_dir, os.environ)
    paths = unused_code(results)
    if not paths:
        _tell_batch(None, 0, "code image", "every code image is named by a run", as_json=as_json)
        return EXIT_GOOD
    if not _agreed(
        f"move {_counted(len(paths), 'code image')} into the trash", paths, yes=yes, dry_run=dry_run, as_json=as_json
    ):
        return EXIT_GOOD
    _tell_batch(remove_code(results, paths), len(paths), "code image", "", as_json=as_json)
    return EXIT_GOOD


def _tell_purged(gone: "TrashSize", told: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(msgspec.to_builtins(gone))
    else:
        emit_text(told)


def _tell_batch(batch: "Batch | None", count: int, one: str, nothing: str, *, as_json: bool) -> None:
    """Tell what was moved where; `nothing` is told when that is nothing."""
    if as_json:
        emit_json({"moved": list(batch.moved) if batch else [], "batch": batch.path if batch else ""})
    else:
        emit_text(f"moved {_counted(count, one)} into {batch.path}" if batch else nothing)


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _agreed(what: str, listed: Sequence[str], *, yes: bool, dry_run: bool, as_json: bool) -> bool:
    """Tell whether to go on; for a dry run tell what would be done, and that this is all.

    Raises UsageError where nobody can answer, StokerError for a no.
    """
    if dry_run:
        tell_foreseen(what, listed, as_json=as_json)
        return False
    if yes:
        return True
    for line in listed[:_LISTED_MAX]:
        click.echo(f"  {harmless(line)}", err=True)
    if len(listed) > _LISTED_MAX:
        click.echo(f"  and {len(listed) - _LISTED_MAX} more", err=True)
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is there to ask whether to {what}", remedy="add --yes")
    if not click.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        raise StokerError("not confirmed: nothing was removed")
    return True
