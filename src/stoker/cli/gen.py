"""`stoker gen`."""

from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stoker.bench.run.datasets import dataset_from
from stoker.bench.run.options import GEN
from stoker.bench.run.plan import default_processes
from stoker.bench.run.target import opened
from stoker.cli.live import live
from stoker.cli.rows import emit_json, settings_from, with_rows
from stoker.core.errors import EXIT_GOOD
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec
from stoker.core.units import format_bytes, format_rate, format_seconds
from stoker.loader.dataset.generate import GenerateOptions, GenerateReport
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.remove import remove


def _show_spec(dataset: DatasetSpec, processes: int) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    size = f"{format_bytes(dataset.record_length_bytes)} a sample"
    table.add_row("files", f"{dataset.files} {dataset.format}, {dataset.samples_per_file} samples each, {size}")
    table.add_row("bytes", f"about {format_bytes(dataset.samples * dataset.record_length_bytes)}")
    table.add_row("content", f"seed {dataset.content_seed}, shrinks {dataset.compress_ratio:g} times")
    table.add_row("processes", str(processes))
    Console(highlight=False).print(table)


def _show_report(report: GenerateReport) -> None:
    told = f"{report.files_made} files made, {report.files_kept + report.files_adopted} were there"
    rate = format_rate(report.bytes_per_second)
    click.echo(f"{told}: {format_bytes(report.bytes_total)} in {format_seconds(report.seconds)} ({rate})")
    for note in report.notes:
        click.echo(note)
    if report.verification is not None:
        click.echo(f"verified: {report.verification.files_checked} files are as the manifest says")


def _remove(target: str, split: str, *, as_json: bool) -> int:
    with opened(target) as store:
        report = remove(store, split)
    if as_json:
        emit_json(msgspec.to_builtins(report))
    else:
        click.echo(f"removed {report.files_removed} files of the {split} split")
    return EXIT_GOOD


@click.command("gen")
@click.argument("target")
@with_rows(GEN)
@click.option("--dry-run", is_flag=True, help="Print what would be made and touch nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(target: str, config: str | None, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> int:
    """Make a dataset at TARGET, for a model of MLPerf or from scratch.

    Run again after an interruption, it makes only what is missing. The same seed makes the same bytes. The folder is
    ours once a marker says so: nothing else is ever replaced or removed.
    """
    settings = settings_from(GEN, given, config)
    if settings["remove"].value:
        return _remove(target, settings["split"].value, as_json=as_json)
    dataset = dataset_from(settings)
    processes = settings["processes"].value or default_processes(dataset)
    if dry_run:
        if as_json:
            emit_json({"target": redact_url(target), "dataset": dataset, "processes": processes})
        else:
            _show_spec(dataset, processes)
        return EXIT_GOOD
    options = GenerateOptions(verify_after=settings["verify"].value, force=settings["force"].value)
    with live(quiet=quiet or as_json) as shown:
        report = generate_parallel(target, dataset, options, processes=processes, progress=shown.generate)
    if as_json:
        emit_json({"target": redact_url(target), "dataset": dataset, "report": msgspec.to_builtins(report)})
    else:
        _show_report(report)
    return EXIT_GOOD
