"""`stoker doctor`."""

import click
import msgspec
from rich.console import Console
from rich.table import Table

from stoker.bench.run.doctor import Check, examine
from stoker.cli.rows import emit_json
from stoker.core.errors import EXIT_GOOD, EXIT_PREFLIGHT

MARKS = {"ok": "ok", "note": "note", "warn": "warn", "fail": "FAIL"}
STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def _print(checks: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("mark", "name", "observed"):
        table.add_column(column, overflow="fold")
    for check in checks:
        style = STYLES[check.status]
        text = check.observed + (f"\n→ {check.remedy}" if check.remedy else "")
        table.add_row(f"[{style}]{MARKS[check.status]}[/]", check.name, text)
    Console(highlight=False).print(table)


@click.command("doctor")
@click.argument("target", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(target: str | None, as_json: bool) -> int:
    """Check this machine and, when TARGET is given, that a small object can be written there, read back and removed.

    Every check is tried, none is guessed. Exit code 5 when any of them fails.
    """
    checks = examine(target)
    if as_json:
        emit_json({"checks": [msgspec.to_builtins(check) for check in checks]})
    else:
        _print(checks)
    return EXIT_PREFLIGHT if any(check.status == "fail" for check in checks) else EXIT_GOOD
