"""`stoker report`."""

from pathlib import Path

import click

from stoker.bench.report.terminal import print_summary, summary_dict
from stoker.bench.rules import exit_code, judge
from stoker.bench.run.launch_mpi import is_first_rank
from stoker.bench.run.recover import load_or_recover
from stoker.cli.screen import emit_json, screen
from stoker.core.errors import StokerError, UsageError
from stoker.core.result import EVENTS_FILE, RESULT_FILE, Result


def finish(result: Result, folder: Path, *, as_json: bool, out: Path | None = None, write: bool = True) -> int:
    """Judge a result, write its page if `write`, print its summary, and return the exit code."""
    verdict = judge(result)
    if not is_first_rank():
        return exit_code(verdict)
    page = str(_write_page(result, folder, out)) if write else ""
    if as_json:
        emit_json({**summary_dict(result, verdict), "folder": str(folder), "report": page})
        return exit_code(verdict)
    with screen() as console:
        print_summary(result, verdict, console)
        if page:
            click.echo(f"report: {page}")
    return exit_code(verdict)


def _write_page(result: Result, folder: Path, out: Path | None) -> Path:
    from stoker.bench.report.html import write_report

    try:
        return write_report(folder, out, result=result)
    except OSError as error:
        raise StokerError(
            "report cannot be written",
            where=str(out or folder),
            got=error.strerror or "",
            remedy="write it elsewhere with: stoker report FOLDER --out FILE",
        ) from error


@click.command("report")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page.", metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Judge and print; write no page, and save nothing that is recovered.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict and the figures as one JSON object.")
def command(result: Path, out: Path | None, dry_run: bool, as_json: bool) -> int:
    """Judge the saved RESULT (a run's folder or its result.json) and write one self-contained HTML page.

    A run that was killed has no result.json: what its logs hold is recovered and labelled partial. The exit code is
    the verdict's.
    """
    if not any(place.exists() for place in (result / RESULT_FILE, result / EVENTS_FILE)) and not result.is_file():
        raise UsageError("no result here", where=str(result), expected="the folder of a run, or its result.json")
    found = load_or_recover(result, save=not dry_run)
    folder = result if result.is_dir() else result.parent
    return finish(found, folder, as_json=as_json, out=out, write=not dry_run)
