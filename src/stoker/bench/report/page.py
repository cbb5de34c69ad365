"""What the page says: everything the template shows, drawn from a result, its verdict and its series."""

import math
import shlex
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup

from stoker.bench.report import charts, checkpoints, kvcache, tables, text, vectors
from stoker.bench.report.glossary import GLOSSARY
from stoker.bench.report.hosts import HOSTS_SHOWN_MAX, HostsLine, host_rows
from stoker.bench.report.latency import StageLatency, curves
from stoker.bench.report.reading import reading_line
from stoker.bench.report.series import Timeline
from stoker.bench.rules.facts import measured, searches, serves_cache
from stoker.bench.rules.verdict import applying
from stoker.core.files import redact_arguments
from stoker.core.result import Finding, Result, Verdict
from stoker.core.units import format_rate

NOTES_MAX: Final = 40
HOST_POINTS_MIN: Final = 3
ANSWER_WORDS: Final = {
    "yes": "YES",
    "no": "NO",
    "not_proven": "NOT PROVEN",
    "client_limited": "CLIENT LIMITED",
    "invalid": "INVALID",
    "partial": "PARTIAL",
}
SEVERITIES: Final = ("blocks", "warns", "informs")


@dataclass(frozen=True, slots=True)
class Saved:
    """What was found in a run folder: the result, its verdict, its series (None where there is none), and troubles."""

    result: Result
    verdict: Verdict
    timeline: Timeline | None = None
    stages: list[StageLatency] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    hosts: HostsLine | None = None


def build(saved: Saved) -> dict[str, Any]:
    """Return the template's variables. Pure: reads no file and no clock."""
    result, verdict = saved.result, saved.verdict
    return {
        "title": f"{ANSWER_WORDS.get(verdict.answer, verdict.answer)}: {text.plain(result.plan.model, 60)}",
        "answer": verdict.answer,
        "answer_word": ANSWER_WORDS.get(verdict.answer, verdict.answer),
        "headline": text.plain(verdict.headline, 900),
        "quick": result.job.verb == "feed",
        "run": _run(result),
        "gauge": _gauge(result) if result.plan.trains else None,
        "tiles": _tiles(result) if result.plan.trains else _section(result).tiles(result),
        "asked": _asked(result) if result.plan.trains else _section(result).asked(result),
        **checkpoints.variables(result),
        **kvcache.variables(result),
        "findings": [_finding(finding) for finding in verdict.findings],
        "held": _held(result, verdict),
        "time_charts": _time_charts(saved),
        "stalls": {"sentence": tables.stall_sentence(result), "rows": tables.stall_rows(result)},
        "latency_chart": _latency_chart(saved.stages),
        "latency_rows": [_latency_row(stage) for stage in saved.stages],
        "ledger": [] if searches(result) else tables.ledger_rows(result),
        "counters": tables.counter_rows(result),
        "agreement": tables.agreement(result),
        "trains": result.plan.trains,
        "epochs": tables.epoch_rows(result),
        "epochs_left": max(0, len(result.epochs) - tables.EPOCHS_MAX),
        "ranks": tables.rank_rows(result),
        "hosts": host_rows(result.hosts),
        "hosts_left": max(0, len(result.hosts) - HOSTS_SHOWN_MAX),
        "ranks_left": max(0, len(result.ranks) - tables.RANKS_MAX),
        "rank_spread": tables.rank_spread(result),
        "machine": text.flatten(result.machine),
        "settings": tables.setting_rows(result),
        "commands": _commands(result),
        "notes": _notes(saved),
        "glossary": GLOSSARY,
    }


def _section(result: Result) -> Any:
    """Return what tells of a run without training: of a KV cache, of vectors, or of checkpoints."""
    if serves_cache(result):
        return kvcache
    return vectors if searches(result) else checkpoints


def _run(result: Result) -> dict[str, str]:
    return {
        "id": text.plain(result.id, 80),
        "verb": text.plain(result.job.verb, 40),
        "version": text.plain(result.stoker_version, 40) or text.DASH,
        "schema": text.plain(result.schema, 40),
        "status": text.plain(result.status, 40),
        "reason": text.plain(result.reason, 300),
        "started": _moment(result.started_utc),
        "ended": _moment(result.ended_utc),
        "wall": text.duration(result.wall_seconds),
    }


def _moment(utc: str) -> str:
    return text.moment(utc) if utc else text.DASH


def _gauge(result: Result) -> dict[str, Any]:
    metrics, threshold = result.metrics, result.plan.au_threshold_ratio
    low, value, high = metrics.au_low_ratio, metrics.au_ratio, metrics.au_high_ratio
    if not measured(result):
        low = value = high = math.nan
    return {
        "svg": charts.gauge(low, value, high, threshold),
        "value": text.percent(value, 2),
        "low": text.percent(low, 2),
        "high": text.percent(high, 2),
        "threshold": text.percent(threshold, 2),
    }


def _tiles(result: Result) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures on the first screen."""
    metrics = result.metrics
    stalled = sum(metrics.stall_seconds.values())
    stage = text.plain(metrics.limiting_stage, 24) or "none"
    of_stall = f"{text.percent(metrics.limiting_share_ratio, 0)} of {text.duration(stalled)} of stall"
    if not measured(result):
        return [("kept steps", "0", "so there are no figures")]
    epochs = sum(epoch.phase == "train" for epoch in result.epochs)
    return [
        (
            "delivered",
            text.rate(metrics.delivered_bytes_per_second),
            f"{text.rate(metrics.store_bytes_per_second)} from the store",
        ),
        (
            "samples",
            f"{text.decimal(metrics.samples_per_second)} /s",
            f"compatible: {text.decimal(metrics.samples_per_second_compatible)} /s",
        ),
        ("limiting stage", stage, of_stall if stalled > 0 else "the accelerators did not wait"),
        ("first batch", text.duration(metrics.first_batch_seconds), "from the start of the loader"),
        ("client CPU", text.percent(metrics.client_cpu_ratio, 0), "of the usable CPUs"),
        ("kept steps", text.count(metrics.steps), f"in {text.count(epochs)} epoch{'' if epochs == 1 else 's'}"),
    ]


def _asked(result: Result) -> list[tuple[str, str]]:
    """Return what was asked for, as (name, value)."""
    plan, dataset, evidence = result.plan, result.plan.dataset, result.evidence
    mode = text.plain(evidence.io_mode, 20) or text.DASH
    if evidence.io_mode_requested not in ("", evidence.io_mode):
        mode += f" ({text.plain(evidence.io_mode_requested, 20)} was asked for)"
    payload = text.size(dataset.samples * dataset.record_length_bytes)
    kind = f" {text.plain(plan.accelerator, 30)}" if plan.accelerator else ""
    limits = [f"{plan.epochs} epoch{'' if plan.epochs == 1 else 's'}" if plan.epochs else "epochs until time is up"]
    limits += [f"at most {text.count(plan.steps_max)} steps an epoch"] if plan.steps_max else []
    limits += [f"at most {text.duration(plan.duration_seconds)}"] if plan.duration_seconds else []
    return [
        ("model", text.plain(plan.model, 60)),
        ("accelerators", f"{plan.ranks} ×{kind}, emulated, one per rank"),
        ("compute per step", text.duration(plan.computation.mean_seconds())),
        ("batch size", text.count(plan.batch_size)),
        ("dataset", f"{text.count(dataset.files)} {text.plain(dataset.format, 30)} files, {payload} of payload"),
        ("a sample", f"{text.size(dataset.record_length_bytes)}, {text.count(dataset.samples_per_file)} a file"),
        ("target", text.safe_value("target", plan.target_url)),
        ("target is", text.plain(evidence.target_kind, 40) or text.DASH),
        ("I/O mode", mode),
        ("reading", reading_line(result) or text.DASH),
        ("order", f"{text.plain(plan.order, 20)}, seed {plan.seed}"),
        ("threads per rank", f"{plan.read_threads or 'chosen number'} reading, {plan.decode_threads} decoding"),
        ("limits", ", ".join(limits)),
    ]


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "rule": text.plain(finding.rule, 60),
        "severity": finding.severity if finding.severity in SEVERITIES else "informs",
        "title": text.plain(finding.title, 200),
        "expected": text.plain(finding.expected),
        "observed": text.plain(finding.observed),
        "where": text.plain(finding.where),
        "remedy": text.plain(finding.remedy),
    }


def _held(result: Result, verdict: Verdict) -> list[tuple[str, str]]:
    """Return (rule, what holds) for each rule without a finding."""
    broken = {finding.rule for finding in verdict.findings}
    return [(rule.id, rule.tested) for rule in applying(result) if rule.id not in broken]


def _time_charts(saved: Saved) -> list[tuple[str, str, Markup]]:
    """Return (title, words, chart) of what happened over time."""
    line, plan = saved.timeline, saved.result.plan
    saves = checkpoints.chart(saved.result) + kvcache.chart(saved.result)
    if line is None or not plan.trains:
        return saves + host_charts(saved)
    x = line.seconds.tolist()
    utilisation = charts.TimeChart(
        "au",
        "Accelerator utilisation",
        "Share of each step spent computing: mean over ranks, and the range from the worst step to the best.",
        x,
        [charts.Line("mean", line.au.mean.tolist(), 1, line.au.low.tolist(), line.au.high.tolist())],
        lambda value: text.percent(value, 0),
        top=1.0,
        rule=(plan.au_threshold_ratio, f"needed {text.percent(plan.au_threshold_ratio, 0)}"),
        marks=line.epochs,
    )
    steps = charts.TimeChart(
        "step",
        "Wait and compute, per step",
        "Mean seconds that a step waited for its batch, with the range over ranks and steps, beside its compute.",
        x,
        [
            charts.Line("wait", line.wait.mean.tolist(), 2, line.wait.low.tolist(), line.wait.high.tolist()),
            charts.Line("compute", line.compute.mean.tolist(), 3),
        ],
        text.tick_duration,
        kind="time",
        marks=line.epochs,
    )
    rate = charts.TimeChart(
        "rate",
        "Bytes delivered per second",
        "Payload handed to all ranks together.",
        x,
        [charts.Line("delivered", line.bytes_per_second.tolist(), 4)],
        _tick_rate,
        kind="binary",
        marks=line.epochs,
    )
    drawn = [(c.title, c.description, charts.time_chart(c)) for c in (utilisation, steps, rate)]
    return drawn + saves + host_charts(saved)


def host_charts(saved: Saved) -> list[tuple[str, str, Markup]]:
    """Return (title, words, chart) of what the hosts did meanwhile, on the time axis of the steps.

    None for a run of so few samples that no line can be seen: the table of hosts tells of it.
    """
    seen = saved.hosts
    if seen is None:
        return []
    from_start = seen.seconds >= 0
    marks = saved.timeline.epochs if saved.timeline is not None else []
    x = seen.seconds[from_start].tolist()
    if len(x) < HOST_POINTS_MIN:
        return []
    cpu = [values[from_start].tolist() for values in (seen.cpu.mean, seen.cpu.low, seen.cpu.high)]
    rates = {name: values[from_start].tolist() for name, values in seen.rates.items()}
    drawn = [
        charts.TimeChart(
            "host-cpu",
            "Host CPU",
            "Busy share of all processors: mean over hosts, and the range from the idlest host to the busiest.",
            x,
            [charts.Line("mean", cpu[0], 1, cpu[1], cpu[2])],
            lambda value: text.percent(value, 0),
            top=1.0,
            marks=marks,
        )
    ]
    for kind, title, first, second in (
        ("network", "Host network", "receive", "transmit"),
        ("disk", "Host disks", "read", "write"),
    ):
        lines = [charts.Line(word, rates[f"{kind}_{word}"], style) for word, style in ((first, 4), (second, 2))]
        words = f"Bytes per second that the kernels counted, all hosts together: {first} and {second}."
        drawn.append(charts.TimeChart(f"host-{kind}", title, words, x, lines, _tick_rate, kind="binary", marks=marks))
    return [(c.title, c.description, charts.time_chart(c)) for c in drawn]


def _tick_rate(value: float) -> str:
    if value == 0:
        return "0"
    number, unit = format_rate(value).split(" ")
    return f"{float(number):g} {unit}"


def _latency_chart(stages: list[StageLatency]) -> Markup:
    return charts.percentile_chart(
        curves(stages),
        "latency",
        "Latency by percentile",
        "Seconds within which that share of a stage's operations ended; both axes are logarithmic.",
    )


def _latency_row(stage: StageLatency) -> dict[str, str]:
    quantiles = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}
    words = tables.STAGE_WORDS.get(stage.name, ("",))[0]
    figures = {name: text.duration(stage.at(quantile)) for name, quantile in quantiles.items()}
    return {"name": text.plain(stage.name, 40), "words": words, "count": text.count(stage.count), **figures}


def _commands(result: Result) -> list[str]:
    words = redact_arguments(list(result.job.arguments[:200])) or result.job.verb.split()
    asked = text.plain("stoker " + shlex.join(words), 2000)
    given = any(word.startswith("--seed") for word in words)
    seed = [] if given else [f"# for the same order of access, add --seed {result.plan.seed}"]
    return [asked, *seed, f"stoker report {text.plain(shlex.quote(result.id), 200)}"]


def _notes(saved: Saved) -> list[str]:
    result = saved.result
    every = [*saved.troubles, *result.notes, *result.evidence.notes, *result.plan.notes]
    return [text.plain(note) for note in dict.fromkeys(every)][:NOTES_MAX]
