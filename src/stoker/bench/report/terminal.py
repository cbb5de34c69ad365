"""The verdict on a terminal: a few lines that read the same with and without colour."""

import math
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from stoker.bench.report import checkpoints, kvcache, vectors
from stoker.bench.report.page import ANSWER_WORDS
from stoker.bench.report.reading import reading_dict, reading_line
from stoker.bench.report.tables import STAGE_WORDS
from stoker.bench.report.text import decimal, duration, percent, plain, rate
from stoker.bench.rules import exit_code
from stoker.bench.rules.facts import compare_counters, measured, saves_alone, searches, serves_cache
from stoker.core.result import Finding, Result, Verdict

SUMMARY_SCHEMA: Final = "stoker-summary/1"
_TONES: Final = {
    "yes": "green",
    "no": "red",
    "not_proven": "yellow",
    "client_limited": "magenta",
    "invalid": "red",
    "partial": "cyan",
}
_SEVERITY_TONES: Final = {"blocks": "red", "warns": "yellow", "informs": "cyan"}
_GAUGE_CELLS: Final = 40
_NOTES_MAX: Final = 8


def print_summary(result: Result, verdict: Verdict, console: Console) -> None:
    """Print the verdict, its figures and its findings.

    Colour is the console's business (it honours NO_COLOR and plain files); nothing is told by colour alone, and
    nothing in the result can steer the terminal.
    """
    word = ANSWER_WORDS.get(verdict.answer, verdict.answer.upper())
    tone = _TONES.get(verdict.answer, "")
    lines = [Text.assemble((word, f"bold {tone}"), "  ", plain(verdict.headline, 900))]
    lines += [Text.assemble((f"  {name:<11}", "dim"), words) for name, words in _figures(result)]
    for finding in verdict.findings:
        lines += _finding_lines(finding)
    notes = dict.fromkeys([*result.evidence.notes, *result.plan.notes, *result.notes])
    lines += [Text.assemble(("  note       ", "dim"), plain(note)) for note in list(notes)[:_NOTES_MAX]]
    for line in lines:
        console.print(line, soft_wrap=True)


def _figures(result: Result) -> list[tuple[str, str]]:
    """Return (name, words) of the lines under the verdict."""
    metrics = result.metrics
    if searches(result):
        return vectors.lines(result)
    if serves_cache(result):
        return kvcache.lines(result)
    if saves_alone(result):
        return checkpoints.lines(result)
    if not measured(result):
        return [("AU", "no step was measured")]
    interval = f"95 % interval {percent(metrics.au_low_ratio, 2)} to {percent(metrics.au_high_ratio, 2)}"
    threshold = result.plan.au_threshold_ratio
    delivered = f"{rate(metrics.delivered_bytes_per_second)}, {decimal(metrics.samples_per_second)} samples/s"
    reading = reading_line(result)
    return [
        ("AU", f"{percent(metrics.au_ratio, 2)}, {interval}, {percent(threshold, 2)} needed"),
        ("", _gauge(metrics.au_ratio, threshold)),
        ("delivered", f"{delivered}, {rate(metrics.store_bytes_per_second)} from the store"),
        ("limit", _limit(result)),
        *([("reading", reading)] if reading else []),
        ("client", f"{percent(metrics.client_cpu_ratio, 0)} CPU, first batch {duration(metrics.first_batch_seconds)}"),
    ]


def _limit(result: Result) -> str:
    metrics = result.metrics
    stalled = sum(metrics.stall_seconds.values())
    if stalled <= 0 or not metrics.limiting_stage:
        return "none: the accelerators did not wait for data"
    what = STAGE_WORDS.get(metrics.limiting_stage, ("",))[0]
    share = f"{percent(metrics.limiting_share_ratio, 0)} of {duration(stalled)} of stall"
    return f"{plain(metrics.limiting_stage, 40)}, {share}" + (f" ({what})" if what else "")


def _gauge(ratio: float, threshold: float) -> str:
    """Return AU as a bar of 40 cells, with a mark where the threshold lies: `[======|   ]`."""
    filled = round(min(1.0, max(0.0, ratio)) * _GAUGE_CELLS) if math.isfinite(ratio) else 0
    cells = ["="] * filled + [" "] * (_GAUGE_CELLS - filled)
    if math.isfinite(threshold):
        cells[min(_GAUGE_CELLS - 1, max(0, round(threshold * _GAUGE_CELLS)))] = "|"
    return f"[{''.join(cells)}]"


def _finding_lines(finding: Finding) -> list[Text]:
    """Return the finding on one line, and the remedy on a second unless it merely informs."""
    facts = [plain(words) for words in (finding.observed, finding.where) if words]
    expected = f" (expected {plain(finding.expected)})" if finding.expected and finding.severity != "informs" else ""
    severity = plain(finding.severity, 20)
    head = Text.assemble((f"  {severity:<11}", f"bold {_SEVERITY_TONES.get(severity, '')}"), plain(finding.title, 200))
    head.append(f": {', '.join(facts)}{expected}" if facts else expected)
    head.append(f"  [{plain(finding.rule, 60)}]", style="dim")
    if not finding.remedy or finding.severity == "informs":
        return [head]
    return [head, Text.assemble(" " * 13, ("what helps: ", "dim"), plain(finding.remedy))]


def _checkpoints(result: Result) -> dict[str, Any]:
    """Return the figures of saves and loads, of runs that have checkpoints."""
    if result.plan.checkpoint is None:
        return {}
    return {
        "checkpointing": msgspec.to_builtins(result.checkpointing),
        "checkpoints": msgspec.to_builtins(result.checkpoints),
    }


def _cache(result: Result) -> dict[str, Any]:
    """Return the figures of a KV cache, of runs that have one."""
    if result.plan.kvcache is None:
        return {}
    return {"kvcache": msgspec.to_builtins(result.kvcache), "trials": msgspec.to_builtins(result.trials)}


def summary_dict(result: Result, verdict: Verdict) -> dict[str, Any]:
    """Return the verdict and its figures as plain data for `--json`: bytes, seconds and ratios, findings in full."""
    comparison = compare_counters(result)
    return {
        "schema": SUMMARY_SCHEMA,
        "id": result.id,
        "verb": result.job.verb,
        "status": result.status,
        "answer": verdict.answer,
        "exit_code": exit_code(verdict),
        "headline": verdict.headline,
        "model": result.plan.model,
        "accelerator": result.plan.accelerator,
        "ranks": result.plan.ranks,
        "au_threshold_ratio": result.plan.au_threshold_ratio,
        "metrics": msgspec.to_builtins(result.metrics),
        **_checkpoints(result),
        **vectors.summary(result),
        **_cache(result),
        "evidence": {
            "io_mode_requested": result.evidence.io_mode_requested,
            "io_mode": result.evidence.io_mode,
            "target_kind": result.evidence.target_kind,
            "ledger": msgspec.to_builtins(result.evidence.ledger),
            "counters": msgspec.to_builtins(result.evidence.counters),
            "witness": comparison.counter,
            "claimed_bytes": comparison.claimed_bytes,
            "counted_bytes": comparison.counted_bytes,
            "difference_ratio": comparison.difference_ratio,
        },
        "reading": reading_dict(result),
        "hosts": msgspec.to_builtins(result.hosts),
        "findings": msgspec.to_builtins(verdict.findings),
        "notes": [*result.notes, *result.evidence.notes, *result.plan.notes],
    }
