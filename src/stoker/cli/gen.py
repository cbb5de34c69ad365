"""`stoker gen`."""

from typing import Any

import click
import msgspec

from stoker.bench.run.datasets import begun_dataset, dataset_from
from stoker.bench.run.doctor import require_target
from stoker.bench.run.options import GEN
from stoker.bench.run.plan import default_processes
from stoker.bench.run.target import opened, synced_url
from stoker.cli.live import live
from stoker.cli.rows import settings_from, with_rows
from stoker.cli.screen import emit_json, emit_pairs, emit_text
from stoker.core.errors import EXIT_GOOD, InterruptedRunError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec
from stoker.core.units import format_bytes, format_rate, format_seconds
from stoker.loader.dataset.generate import GenerateOptions, GenerateReport
from stoker.loader.dataset.parallel import generate_parallel
from stoker.loader.dataset.remove import remove


def _spec_lines(dataset: DatasetSpec, processes: int) -> dict[str, str]:
    """Return what would be made, as lines for people."""
    size = f"{format_bytes(dataset.record_length_bytes)} a sample"
    return {
        "files": f"{dataset.files} {dataset.format}, {dataset.samples_per_file} samples each, {size}",
        "bytes": f"about {format_bytes(dataset.samples * dataset.record_length_bytes)}",
        "content": f"seed {dataset.content_seed}, shrinks {dataset.compress_ratio:g} times",
        "processes": str(processes),
    }


def _report_text(report: GenerateReport) -> str:
    told = f"{report.files_made} files made, {report.files_kept + report.files_adopted} were there"
    rate = format_rate(report.bytes_per_second)
    lines = [f"{told}: {format_bytes(report.bytes_total)} in {format_seconds(report.seconds)} ({rate})", *report.notes]
    if report.verification is not None:
        lines.append(f"verified: {report.verification.files_checked} files are as the manifest says")
    return "\n".join(lines)


def _remove(target: str, split: str, *, dry_run: bool, as_json: bool) -> int:
    """Remove the split, or tell what would be removed."""
    require_target(target, write=False)
    with opened(target) as store:
        if dry_run:
            dataset = begun_dataset(store, split)
            text = f"would remove the {split} split: at most {dataset.files} {dataset.format} files"
            document: dict[str, Any] = {"target": redact_url(target), "dataset": dataset}
        else:
            report = remove(store, split)
            text = f"removed {report.files_removed} files of the {split} split"
            text += f"; {report.foreign_count} that are not ours stay" if report.foreign_count else ""
            document = msgspec.to_builtins(report)
    if as_json:
        emit_json(document)
    else:
        emit_text(text)
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
    target = synced_url(target, settings["fsync"].value)
    if settings["remove"].value:
        return _remove(target, settings["split"].value, dry_run=dry_run, as_json=as_json)
    dataset = dataset_from(settings)
    processes = settings["processes"].value or default_processes(dataset)
    if dry_run:
        if as_json:
            emit_json({"target": redact_url(target), "dataset": dataset, "processes": processes})
        else:
            emit_pairs(_spec_lines(dataset, processes))
        return EXIT_GOOD
    require_target(target, write=True, create=True)
    options = GenerateOptions(verify_after=settings["verify"].value, force=settings["force"].value)
    try:
        with live(quiet=quiet or as_json) as shown:
            report = generate_parallel(target, dataset, options, processes=processes, progress=shown.generate)
    except InterruptedRunError as stopped:
        remedy = "run the same again: what is finished is kept"
        raise InterruptedRunError(stopped.what, remedy=remedy, signal_number=stopped.exit_code - 128) from stopped
    if as_json:
        emit_json({"target": redact_url(target), "dataset": dataset, "report": msgspec.to_builtins(report)})
    else:
        emit_text(_report_text(report))
    return EXIT_GOOD
