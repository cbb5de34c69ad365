"""A judgement in words: lines as the reference checker writes them, a CSV of them, a JSON-ready dictionary."""

import csv
import io
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.judging import Judgement, RuleOutcome

SCHEMA: Final = "stoker-check/1"
CSV_COLUMNS: Final = ("level", "rule", "name", "path", "key", "message", "required", "remedy")
_LEVELS: Final = {"blocks": "ERROR", "warns": "WARNING", "informs": "INFO"}


def counted(judgement: Judgement) -> dict[str, int]:
    """Return how many rules passed, failed, were not decided, and concerned nothing."""
    states = [outcome.state for outcome in judgement.rules]
    return {state: states.count(state) for state in ("passed", "failed", "undecided", "idle")}


def undecided(judgement: Judgement) -> list[RuleOutcome]:
    """Return the rules of which something could not be decided, those first that could have been."""
    found = [outcome for outcome in judgement.rules if outcome.undecided]
    return sorted(found, key=lambda outcome: not outcome.blind)


def judgement_dict(judgement: Judgement) -> dict[str, Any]:
    """Return the judgement for `--json`."""
    return {
        "schema": SCHEMA,
        "answer": judgement.answer,
        "exit_code": judgement.exit_code,
        "kind": judgement.kind,
        "edition": judgement.edition,
        "divisions": list(judgement.divisions),
        "results": judgement.results,
        "leaves": judgement.leaves,
        "counts": counted(judgement),
        "findings": [_harmless(msgspec.to_builtins(finding)) for finding in judgement.findings],
        "facts": [_harmless(msgspec.to_builtins(facts)) for facts in judgement.facts],
        "rules": [_harmless(msgspec.to_builtins(outcome)) for outcome in judgement.rules],
    }


def _harmless(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with names that are not UTF-8 made so: JSON cannot hold them."""
    return {key: _safe(value) for key, value in row.items()}


def _safe(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_safe(item) for item in value]
    return _utf8(value) if isinstance(value, str) else value


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_text(judgement: Judgement) -> str:
    """Return the findings and the undecided rules as CSV, a line each.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for each in judgement.findings:
        row = (each.name, each.path, each.key, each.observed, each.expected, each.remedy)
        writer.writerow([_LEVELS[each.severity], each.rule, *map(_cell, row)])
    for outcome in undecided(judgement):
        message = f"not decided: {outcome.reason}"
        row = (outcome.name, outcome.where, "", message, RULES[outcome.rule].tested, "")
        writer.writerow(["INFO", outcome.rule, *map(_cell, row)])
    return out.getvalue()


def _cell(text: str) -> str:
    plain = _utf8(text)
    return f"'{plain}" if plain[:1] in ("=", "+", "-", "@", "\t", "\r") else plain
