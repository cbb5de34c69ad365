"""How `stoker check` and `stoker mlperf validate` tell a judgement: lines for people, JSON, a CSV of the findings."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from stoker.cli.screen import emit_json, screen
from stoker.core.errors import StokerError, UsageError
from stoker.core.files import write_atomic

if TYPE_CHECKING:
    from rich.console import Console

    from stoker.bench.rules.mlperf import Judgement

_TONES: Final = {"valid": "green", "not_proven": "yellow", "invalid": "red"}
_LEVEL_TONES: Final = {"blocks": "red", "warns": "yellow", "informs": "cyan"}


def checksum_of(text: str | None) -> str:
    """Return an MD5 digest in lower case, nothing for none. Raises UsageError for other text."""
    if text is None:
        return ""
    if len(text) != 32 or not set(text.lower()) <= set("0123456789abcdef"):
        raise UsageError("not an MD5 digest", where=text, expected="32 hex digits")
    return text.lower()


def tell(judgement: "Judgement", *, as_json: bool) -> None:
    """Print a judgement, as lines or as one JSON object."""
    from stoker.bench.rules.mlperf.telling import judgement_dict

    if as_json:
        emit_json(judgement_dict(judgement))
        return
    with screen() as console:
        _print(judgement, console)


def _print(judgement: "Judgement", console: "Console") -> None:
    from stoker.bench.report.text import plain
    from stoker.bench.rules.mlperf.telling import counted, undecided

    for finding in judgement.findings:
        level, _, rest = plain(finding.line, 2000).partition(" ")
        console.print(Text.assemble((level, _LEVEL_TONES[finding.severity]), " ", rest), soft_wrap=True)
        console.print(Text(f"    remedy: {plain(finding.remedy)}"), soft_wrap=True)
    for outcome in undecided(judgement):
        where = f" {plain(outcome.where)}" if outcome.where else ""
        line = f"[INFO] [{outcome.rule} {outcome.name}]{where}: not decided: {plain(outcome.reason)}"
        console.print(Text(line, style="dim"), soft_wrap=True)
    counts = counted(judgement)
    told = f"{counts['passed']} rules passed, {counts['failed']} failed, {counts['undecided']} not decided"
    results = f"{judgement.results} result{'' if judgement.results == 1 else 's'}"
    leaves = f"{judgement.leaves} {'leaf' if judgement.leaves == 1 else 'leaves'}"
    what = f"{judgement.kind} of edition {judgement.edition}, {results}, {leaves}"
    answer = judgement.answer.replace("_", " ").upper()
    console.print(Text.assemble((answer, f"bold {_TONES[judgement.answer]}"), f"  {what}: {told}"), soft_wrap=True)


def write_csv(judgement: "Judgement", csv_file: Path | None) -> None:
    """Write the findings as CSV, if a file is told. Raises StokerError when it cannot be written."""
    from stoker.bench.rules.mlperf.telling import csv_text

    if csv_file is None:
        return
    try:
        write_atomic(csv_file, csv_text(judgement).encode())
    except OSError as error:
        raise StokerError(
            "summary cannot be written", where=str(csv_file), got=error.strerror or "", remedy="write it elsewhere"
        ) from error
