"""The table of rules: which check decides each, in which editions and divisions, or why none can."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import DIVISIONS, RULES, MlperfRule
from stoker.bench.rules.mlperf.judging import CHECKS
from stoker.bench.rules.mlperf.tables import Override, overrides

_TITLES: Final = {
    "any": "All workloads, and the tree",
    "training": "Training",
    "checkpointing": "Checkpointing",
    "vector_database": "Vector database",
    "kv_cache": "KV cache",
}


def rows(edition: str = "", division: str = "") -> list[dict[str, Any]]:
    """Return a row a rule, those of an edition and a division if named: the catalogue's facts and the check's name."""
    return [
        {**msgspec.to_builtins(rule), "check": CHECKS[rule.id].name if rule.id in CHECKS else ""}
        for rule in RULES.values()
        if (not edition or edition in rule.editions) and (not division or division in rule.divisions)
    ]


def counts(listed: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many rules a check decides, how many others cover, how many nothing can decide."""
    decided = sum(bool(row["check"]) for row in listed)
    covered = sum(bool(row["covered_by"]) for row in listed)
    return {
        "rules": len(listed),
        "decided": decided,
        "covered": covered,
        "undecidable": len(listed) - decided - covered,
    }


def matrix_page(breakers: Mapping[str, str]) -> str:
    """Return the matrix in Markdown; `breakers` maps a rule to the tests that break it."""
    parts = [_family(name, title, breakers) for name, title in _TITLES.items()]
    return "\n".join([*parts, _overrides()])


def _family(family: str, title: str, breakers: Mapping[str, str]) -> str:
    lines = [f"### {title}", "", "| rule | what holds | editions | severity | check | broken by |"]
    lines.append("|---|---|---|---|---|---|")
    for rule in RULES.values():
        if rule.family == family:
            lines.append(_line(rule, breakers))
    return "\n".join([*lines, ""])


def _line(rule: MlperfRule, breakers: Mapping[str, str]) -> str:
    where = ", ".join(rule.editions) + ("" if rule.divisions == DIVISIONS else f" ({', '.join(rule.divisions)})")
    name = f"{rule.id} `{rule.name}`"
    if not rule.decidable:
        return f"| {name} | *not decided*: {rule.why_not} | {where} | {rule.severity} | – | – |"
    broken = breakers.get(rule.id, "")
    return f"| {name} | {rule.tested} | {where} | {rule.severity} | `{CHECKS[rule.id].name}` | {broken} |"


def _values(entry: Override) -> str:
    least = f"from {entry.minimum:g}" if entry.minimum is not None else "any"
    told = ", ".join(map(str, entry.values)) or least
    return told + (f", {' and '.join(entry.models)} only" if entry.models else "")


def _overrides() -> str:
    lines = ["### What may be overridden", "", "| workload | division | key | values |", "|---|---|---|---|"]
    for family in list(_TITLES)[1:]:
        table = overrides().family(family)
        for division, entries in (("closed", table.closed), ("open, besides", table.open)):
            for entry in entries:
                told = ", ".join(map(str, entry.values)) or (
                    f"from {entry.minimum:g}" if entry.minimum is not None else "any"
                )
                told += f", {' and '.join(entry.models)} only" if entry.models else ""
                lines.append(f"| {family} | {division} | `{entry.key}` | {told} |")
    tool = ", ".join(f"`{key}`" for key in overrides().tool_keys)
    return "\n".join([*lines, "", f"Set by the tool itself and never counted: {tool}.", ""])
