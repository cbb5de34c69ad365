"""`stoker feed`."""

from typing import Any

import click

from stoker.bench.run.feed import FeedPlan, FeedWatchers, plan_feed, run_feed
from stoker.bench.run.folders import new_run_folder, results_kept_in
from stoker.bench.run.hosts.start import launch_wanted
from stoker.bench.run.options import FEED
from stoker.cli.launching import launch
from stoker.cli.live import live
from stoker.cli.plan import show_plan
from stoker.cli.report import finish
from stoker.cli.rows import job_from, settings_from, with_rows
from stoker.cli.screen import warn
from stoker.core.files import redact_url
from stoker.core.units import format_bytes, format_rate, format_seconds


def describe(plan: FeedPlan) -> dict[str, str]:
    """Return the lines of the plan for people."""
    lines = {"data": redact_url(plan.url), "run": format_seconds(plan.run_seconds)}
    if plan.generate:
        rate = format_rate(plan.write_bytes_per_second)
        how = "measured" if plan.write_rate_measured else "assumed until it is measured"
        lines["generate"] = f"{format_bytes(plan.generate_bytes)} at {rate} ({how}), {plan.processes} processes"
    else:
        lines["generate"] = "nothing: the dataset is there"
    return lines


@click.command("feed")
@click.argument("target")
@with_rows(FEED)
@click.option("--dry-run", is_flag=True, help="Print the plan and touch nothing.")
@click.option("--quiet", is_flag=True, help="No live progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(target: str, config: str | None, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> int:
    """Can TARGET (a folder, file://, direct://, s3://, az:// or gs:// URL) feed these accelerators?

    Generates only what the time budget allows, runs, and answers YES, NO or NOT PROVEN with the accelerator
    utilisation, its 95 % interval, bytes/s and the limiting stage. Whatever was generated is removed again.
    """
    settings = settings_from(FEED, given, config)
    if launch_wanted(settings):
        return launch(settings, target, dry_run=dry_run, quiet=quiet or as_json)
    plan = plan_feed(settings, target, touch=not dry_run)
    if dry_run:
        return show_plan(plan.training, describe(plan), document=plan, as_json=as_json)
    folder = new_run_folder(settings["results"].value, f"feed-{plan.training.model}")
    with results_kept_in(folder):
        with live(quiet=quiet or as_json) as shown:
            result = run_feed(job_from("feed", settings), plan, folder, FeedWatchers(shown.generate, shown.run, warn))
        return finish(result, folder, as_json=as_json)
