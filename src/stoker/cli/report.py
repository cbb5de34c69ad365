"""`stoker report`."""

from pathlib import Path

import click
from rich.console import Console

from stoker.bench.report.html import write_report
from stoker.bench.report.terminal import print_summary, summary_dict
from stoker.bench.rules import exit_code, judge
from stoker.bench.run.launch_mpi import is_first_rank
from stoker.bench.run.recover import load_or_recover
from stoker.cli.rows import emit_json
from stoker.core.result import Result


def finish(result: Result, folder: Path, *, as_json: bool, out: Path | None = None) -> int:
    """Judge a result, write its page, print its summary, and return the exit code."""
    verdict = judge(result)
    if not is_first_rank():
        return exit_code(verdict)
    page = write_report(folder, out, result=result)
    if as_json:
        emit_json({**summary_dict(result, verdict), "folder": str(folder), "report": str(page)})
    else:
        print_summary(result, verdict, Console(highlight=False))
        click.echo(f"report: {page}")
    return exit_code(verdict)


@click.command("report")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page.", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict and the figures as one JSON object.")
def command(result: Path, out: Path | None, as_json: bool) -> int:
    """Judge the saved RESULT (a run's folder or its result.json) and write one self-contained HTML page.

    A run that was killed has no result.json: what its logs hold is recovered and labelled partial. The exit code is
    the verdict's.
    """
    found = load_or_recover(result)
    folder = result if result.is_dir() else result.parent
    return finish(found, folder, as_json=as_json, out=out)
