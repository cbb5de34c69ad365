"""What a report shows of a KV cache: tiles, tables and a chart on the page, lines on a terminal."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from stoker.bench.report import charts, text
from stoker.bench.rules.facts import share
from stoker.bench.rules.kvcache_checks import goals, storage_of
from stoker.core.kvcache import STORAGE, KvFigures, KvPoint, TierCounts
from stoker.core.result import Result
from stoker.core.units import format_rate

TRIALS_MAX: Final = 60
POINTS_SHOWN_MAX: Final = 2400
_OPERATIONS: Final = ("read", "write", "demote_read", "demote_write")
_SUFFIXES: Final = ("", "_device", "_host")


def tiles(result: Result) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures on the first screen."""
    figures = result.kvcache
    if figures is None or not figures.trials:
        return [("trials", "0", "none was seen, so there are no figures")]
    of = f"mean of {figures.trials} trial{'' if figures.trials == 1 else 's'}"
    found = [
        (
            "read",
            text.rate(figures.read_bytes_per_second),
            f"from storage, {of}, ± {_cv(figures.read_variation_ratio)}",
        ),
        ("written", text.rate(figures.write_bytes_per_second), f"to storage, ± {_cv(figures.write_variation_ratio)}"),
        ("tokens", f"{text.decimal(figures.tokens_per_second)} /s", "generated, over the time that passed"),
        ("hits", text.percent(figures.hit_ratio), _hits(figures)),
        ("an entry", text.size(figures.entry_bytes_mean), f"at most {text.size(figures.entry_bytes_max)}"),
        ("client CPU", text.percent(result.metrics.client_cpu_ratio, 0), _cpu(figures)),
    ]
    for name, words in (("storage_read_device", "read"), ("storage_write_device", "write")):
        known = figures.latency_seconds.get(name)
        if known is not None:
            worst = text.duration(figures.p95_max_seconds.get(name))
            found.append((f"P95 of a {words}", text.duration(known["p95"]), f"device time; worst client {worst}"))
    return [*found, *_break_even(result, figures)]


def _cv(ratio: float) -> str:
    return text.percent(ratio, 0)


def _hits(figures: KvFigures) -> str:
    whole = sum(figures.hits_by_tier.values())
    return ", ".join(
        f"{text.percent(share(count, whole), 0)} {text.plain(name, 20)}" for name, count in figures.hits_by_tier.items()
    )


def _cpu(figures: KvFigures) -> str:
    if figures.cpu_seconds_per_gib is None:
        return "of the usable CPUs"
    return f"of the usable CPUs, {figures.cpu_seconds_per_gib:.2f} s a GiB"


def _break_even(result: Result, figures: KvFigures) -> Iterator[tuple[str, str, str]]:
    what = result.plan.kvcache
    if what is None or figures.fed_accelerators is None:
        return
    rate, need = text.decimal(what.prefill_tokens_per_second), text.rate(figures.break_even_bytes_per_second)
    origin = "as told" if what.prefill_required else "taken, not measured"
    yield ("break-even", f"{figures.fed_accelerators:.2f} ×", f"{need} is what {rate} tokens/s ({origin}) are worth")


def asked(result: Result) -> list[tuple[str, str]]:
    """Return what was asked for, as (name, value)."""
    plan, evidence, what = result.plan, result.evidence, result.plan.kvcache
    if what is None:
        return []
    tiers = f"CPU {text.size(what.cpu_bytes)}, storage {text.size(what.storage_bytes)}" if what.storage_bytes else ""
    return [
        ("model", f"{text.plain(plan.model, 60)}, {text.count(what.token_bytes)} bytes a token"),
        ("clients", f"{plan.ranks}, each with {text.count(what.users)} users"),
        ("trials", f"{what.trials} of {text.duration(what.duration_seconds)}"),
        ("layout", text.plain(what.layout, 20)),
        ("tiers", tiers or f"CPU {text.size(what.cpu_bytes)}, storage up to 95 % of what is free"),
        ("traffic", f"{text.plain(what.source, 20)}, {text.plain(what.mode, 20)}, seed {what.seed}"),
        ("generation", text.plain(what.generation, 20)),
        ("entries written at once", text.count(what.allocations_max) if what.allocations_max else "no limit"),
        ("verified", f"{text.percent(what.verify_ratio, 0)} whole, every 4 KiB of the others"),
        ("target", text.safe_value("target", plan.target_url)),
        ("target is", text.plain(evidence.target_kind, 40) or text.DASH),
        ("I/O mode", text.plain(evidence.io_mode, 20) or text.DASH),
    ]


def variables(result: Result) -> dict[str, Any]:
    """Return the template's variables of the section on the KV cache."""
    if result.plan.kvcache is None:
        return {"cache_trials": [], "cache_latencies": [], "cache_tiers": [], "cache_goals": []}
    return {
        "cache_trials": [_trial(result, at) for at in range(min(TRIALS_MAX, len(result.trials)))],
        "cache_latencies": list(_latencies(result)),
        "cache_tiers": list(_tiers(result)),
        "cache_goals": [(words, "met" if met else "missed") for words, met in goals(result)],
    }


def _trial(result: Result, at: int) -> dict[str, str]:
    trial = result.trials[at]
    storage = storage_of(trial)
    return {
        "name": f"{trial.number}" + ("" if trial.complete else " (cut short)"),
        "seconds": text.duration(trial.seconds),
        "read": text.rate(trial.read_bytes_per_second),
        "write": text.rate(trial.write_bytes_per_second),
        "tokens": text.decimal(trial.tokens_per_second),
        "storage_tokens": text.decimal(trial.storage_tokens_per_second),
        "requests": text.count(trial.counts.requests),
        "waiting": text.count(trial.counts.waiting),
        "hits": text.percent(trial.hit_ratio),
        "deletes": text.count(storage.deletes),
        "held": text.size(storage.bytes_max),
        "lost": text.size(trial.counts.lost_bytes),
    }


def _tiers(result: Result) -> Iterator[dict[str, str]]:
    sums: dict[str, TierCounts] = {}
    for trial in result.trials:
        for name, tier in trial.tiers.items():
            sums.setdefault(name, TierCounts()).add(tier)
    for name, tier in sums.items():
        yield {
            "name": text.plain(name, 20),
            "reads": text.count(tier.reads),
            "read": text.size(tier.read_bytes),
            "writes": text.count(tier.writes),
            "written": text.size(tier.write_bytes),
            "demoted_in": text.size(tier.demote_write_bytes),
            "demoted_out": text.size(tier.demote_read_bytes),
            "deletes": text.count(tier.deletes),
            "entry": text.size((tier.read_bytes + tier.write_bytes) / max(1, tier.reads + tier.writes)),
            "entry_max": text.size(tier.entry_bytes_max),
        }


def _latencies(result: Result) -> Iterator[dict[str, str]]:
    """Yield a row for each tier and operation, the bytes of its entries beside it."""
    figures = result.kvcache
    if figures is None:
        return
    sums = {row["name"]: row["entry"] for row in _tiers(result)}
    for tier, entry in sums.items():
        for operation in _OPERATIONS:
            for suffix in _SUFFIXES:
                known = figures.latency_seconds.get(f"{tier}_{operation}{suffix}")
                if known is not None:
                    yield _latency(f"{tier} {operation.replace('_', ' ')}{suffix.replace('_', ', ')}", entry, known)
    for name in ("queue", "request", "io", "generation"):
        known = figures.latency_seconds.get(name)
        if known is not None:
            yield _latency(name, text.DASH, known)


def _latency(name: str, entry: str, known: dict[str, float]) -> dict[str, str]:
    shown = {at: text.duration(known.get(at)) for at in ("mean", "p50", "p95", "p99", "max")}
    return {"name": text.plain(name, 60), "entry": entry, "count": text.count(int(known.get("count", 0))), **shown}


def chart(result: Result) -> list[tuple[str, str, Markup]]:
    """Return (title, words, chart) of what storage moved over the time of the trials, all ranks together."""
    lines: list[tuple[list[float], list[float], list[float]]] = [_rates(rank.trials) for rank in result.ranks]
    lines = [line for line in lines if len(line[0]) > 1]
    if not lines:
        return []
    longest = max(lines, key=lambda line: len(line[0]))
    x = longest[0][:POINTS_SHOWN_MAX]
    shown = [
        charts.Line("read", [_sum(lines, 1, at) for at in range(len(x))], 1),
        charts.Line("written", [_sum(lines, 2, at) for at in range(len(x))], 2),
    ]
    words = "Bytes a second that storage read and wrote for requests, all clients together; trials one after the other."
    drawn = charts.TimeChart("kvcache", "What the storage tier moved", words, x, shown, _tick, kind="binary")
    return [(drawn.title, drawn.description, charts.time_chart(drawn))]


def _rates(trials: Any) -> tuple[list[float], list[float], list[float]]:
    x: list[float] = []
    read: list[float] = []
    written: list[float] = []
    offset = 0.0
    for trial in trials:
        points: list[KvPoint] = trial.points
        for before, after in pairwise(points):
            seconds = after.seconds - before.seconds
            if seconds > 0:
                x.append(offset + after.seconds)
                read.append((after.read_bytes - before.read_bytes) / seconds)
                written.append((after.write_bytes - before.write_bytes) / seconds)
        offset += trial.seconds
    return x, read, written


def _sum(lines: list[tuple[list[float], list[float], list[float]]], column: int, at: int) -> float:
    values = [line[column][at] for line in lines if at < len(line[column])]
    return sum(values) if values else math.nan


def _tick(value: float) -> str:
    if value == 0:
        return "0"
    number, unit = format_rate(value).split(" ")
    return f"{float(number):g} {unit}"


def lines(result: Result) -> list[tuple[str, str]]:
    """Return (name, words) of the lines under the verdict on a terminal."""
    figures = result.kvcache
    if figures is None or not figures.trials:
        return [("cache", "no trial was seen")]
    spread = f" (± {_cv(figures.read_variation_ratio)} over {figures.trials} trials)" if figures.trials > 1 else ""
    rates = (
        f"{text.rate(figures.read_bytes_per_second)} read{spread}, {text.rate(figures.write_bytes_per_second)} written"
    )
    entry = f"entries of {text.size(figures.entry_bytes_mean)}, at most {text.size(figures.entry_bytes_max)}"
    by_io = f"by the sum of I/O time {text.decimal(figures.storage_tokens_per_second)} /s"
    found = [
        ("storage", f"{rates}; {entry}"),
        ("tokens", f"{text.decimal(figures.tokens_per_second)} /s; {by_io}"),
        ("hits", f"{text.percent(figures.hit_ratio)}: {_hits(figures)}; {text.count(figures.deletes)} deletes"),
    ]
    for name, words in (("storage_read_device", "read"), ("storage_write_device", "write")):
        known = figures.latency_seconds.get(name)
        if known is not None:
            told = ", ".join(f"{at.upper()} {text.duration(known[at])}" for at in ("p50", "p95", "p99"))
            found.append((words, f"{told} (device time, {text.count(int(known['count']))} of {STORAGE})"))
    found += [(name, f"{figure}: {remark}") for name, figure, remark in _break_even(result, figures)]
    return [*found, ("client", f"{text.percent(result.metrics.client_cpu_ratio, 0)} CPU, {_cpu(figures)}")]
