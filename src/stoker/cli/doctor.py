"""`stoker doctor`."""

import os

import click
import msgspec
from rich.text import Text

from stoker.bench.run.doctor import examine
from stoker.bench.run.doctor_surroundings import gate_checks
from stoker.bench.run.hosts.judging import Check
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.hosts.preflight import examine_hosts
from stoker.cli.screen import emit_json, harmless, screen
from stoker.core.errors import EXIT_GOOD, EXIT_PREFLIGHT

MARKS = {"ok": "ok", "note": "note", "warn": "warn", "fail": "FAIL"}
STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    with screen() as console:
        for check in checks:
            mark = (f"{MARKS[check.status]:4}", STYLES[check.status])
            console.print(Text.assemble(mark, f"  {check.name:{width}}  {harmless(check.observed)}"), soft_wrap=True)
            if check.remedy:
                console.print(Text(f"{'':{width + 8}}→ {harmless(check.remedy)}"), soft_wrap=True)


@click.command("doctor")
@click.argument("target", required=False)
@click.option("--hosts", metavar="HOST[,HOST…]", help="Check these hosts, too, over SSH, and what they have in common.")
@click.option("--results", metavar="DIR", help="Where results will lie: TARGET and DIR are put through the gates.")
@click.option("--dry-run", is_flag=True, help="Write nothing: TARGET is only opened and listed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(target: str | None, hosts: str | None, results: str | None, dry_run: bool, as_json: bool) -> int:
    """Check this machine and, when TARGET is given, that a small object can be written there, read back and removed.

    Every check is tried, none is guessed. With --hosts each of them is reached by SSH, answers for its packages, limits
    and clock, and must see a file that one of them writes below TARGET. With --results the gates that stand before a
    run of `stoker mlperf` are made (CAP-01 to CAP-03). Exit code 5 when any check fails.
    """
    checks = examine(target, write=not dry_run)
    if hosts:
        place = target if not target or "://" in target else os.path.abspath(target)  # noqa: PTH100 - keeps no `..`
        checks += examine_hosts(parse_hosts(hosts), place or "", write=not dry_run)
    if target is not None and results is not None and not dry_run:
        checks += gate_checks(target, results)
    if as_json:
        emit_json({"checks": [msgspec.to_builtins(check) for check in checks]})
    else:
        _print(checks)
    return EXIT_PREFLIGHT if any(check.status == "fail" for check in checks) else EXIT_GOOD
