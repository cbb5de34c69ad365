"""What a report shows of checkpoints: tiles, tables and a chart on the page, lines on a terminal."""

import math
from datetime import datetime
from typing import Any, Final

from markupsafe import Markup

from stoker.bench.report import charts, text
from stoker.bench.rules.facts import share
from stoker.core.checkpoints import COMMIT, LOAD, SAVE, STAGE, WRITE, Checkpoint, OperationFigures
from stoker.core.result import Result
from stoker.core.units import GiB, format_rate

OPERATIONS_MAX: Final = 120
_SAVE_STAGES: Final = (STAGE, WRITE, COMMIT)


def tiles(result: Result) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures on the first screen."""
    figures = result.checkpointing
    if figures is None or (figures.save is None and figures.load is None):
        return [("checkpoints", "0", "none was seen through, so there are no figures")]
    found = [("a checkpoint", text.size(figures.size_bytes), f"{text.count(figures.files)} files")]
    for verb, each in (("saved", figures.save), ("loaded", figures.load)):
        if each is not None:
            found.append((f"{verb} at", text.rate(each.bytes_per_second), f"by rank 0: {_compatible_rate(each)}"))
            found.append((f"{verb} in", text.duration(each.seconds), f"by rank 0: {_compatible_seconds(each)}"))
    found.append(("client CPU", text.percent(result.metrics.client_cpu_ratio, 0), "of the usable CPUs"))
    return found


def _compatible_rate(figures: OperationFigures) -> str:
    return text.rate(figures.bytes_per_second_compatible)


def _compatible_seconds(figures: OperationFigures) -> str:
    return text.duration(figures.seconds_compatible)


def asked(result: Result) -> list[tuple[str, str]]:
    """Return what was asked for, as (name, value)."""
    plan, evidence, what = result.plan, result.evidence, result.plan.checkpoint
    if what is None:
        return []
    shape = what.shape
    gap = "" if what.hand_over_seconds is None else f", {text.duration(what.hand_over_seconds)} after the last write"
    return [
        ("model", text.plain(plan.model, 60)),
        (
            "ranks",
            f"{plan.ranks}: tensor {shape.tensor} × pipeline {shape.pipeline} × data {shape.replicas(plan.ranks)}",
        ),
        ("ZeRO stage", str(shape.zero_stage)),
        ("element types", f"{text.plain(shape.model_type, 10)}, optimizer {text.plain(shape.optimizer_type, 10)}"),
        ("writes, reads", f"{what.writes}, {what.reads}{gap}"),
        ("pause before each", text.duration(what.interval_seconds)),
        ("fsync", text.plain(what.fsync, 10)),
        ("buffers per rank", f"{what.buffers} of {text.size(what.buffer_bytes)}, {what.writers} files at once"),
        ("page cache", "emptied of a rank's files before it reads them" if plan.evict else "left alone"),
        ("verified", text.percent(what.verify_ratio, 0)),
        ("target", text.safe_value("target", plan.target_url)),
        ("target is", text.plain(evidence.target_kind, 40) or text.DASH),
        ("I/O mode", text.plain(evidence.io_mode, 20) or text.DASH),
    ]


def rows(result: Result) -> list[dict[str, str]]:
    """Return the first operations, as many as a page holds."""
    return [_row(each) for each in result.checkpoints[:OPERATIONS_MAX]]


def _row(each: Checkpoint) -> dict[str, str]:
    written = text.DASH if each.device_written_bytes is None else text.size(each.device_written_bytes)
    cached = each.dirty_bytes if each.operation == SAVE else each.resident_bytes
    return {
        "name": f"{text.plain(each.operation, 10)} {each.number}" + ("" if each.complete else " (cut short)"),
        "id": text.plain(each.id, 60),
        "bytes": text.size(each.bytes),
        "seconds": text.duration(each.seconds),
        "rate": text.rate(each.bytes_per_second),
        "seconds_compatible": text.duration(each.seconds_compatible),
        "rate_compatible": text.rate(each.bytes_per_second_compatible),
        "all": text.duration(each.all_seconds),
        "slowest": f"{each.slowest_rank} on {text.plain(each.slowest_host, 40)}",
        "device": written if each.operation == SAVE else text.DASH,
        "cached": text.DASH if cached is None else text.size(cached),
        "verified": text.size(each.verified_bytes) if each.operation == LOAD else text.DASH,
    }


def chart(result: Result) -> list[tuple[str, str, Markup]]:
    """Return (title, words, chart) of the operations' rates over time; nothing where fewer than two were seen."""
    done = [each for each in result.checkpoints if each.complete and each.started_utc]
    if len(done) < 2:
        return []
    first = _seconds(done[0])
    x = [_seconds(each) - first for each in done]
    lines = [
        charts.Line("saves", [_rate(each, SAVE, each.bytes_per_second) for each in done], 1),
        charts.Line("saves, rank 0", [_rate(each, SAVE, each.bytes_per_second_compatible) for each in done], 5),
        charts.Line("loads", [_rate(each, LOAD, each.bytes_per_second) for each in done], 2),
        charts.Line("loads, rank 0", [_rate(each, LOAD, each.bytes_per_second_compatible) for each in done], 6),
    ]
    shown = [line for line in lines if any(math.isfinite(value) for value in line.y)]
    words = "All ranks' bytes over the slowest rank's time, and over rank 0's, at the moment each began."
    drawn = charts.TimeChart("checkpoints", "Rate of saves and loads", words, x, shown, _tick, kind="binary")
    return [(drawn.title, drawn.description, charts.time_chart(drawn))]


def _seconds(each: Checkpoint) -> float:
    return datetime.fromisoformat(each.started_utc).timestamp()


def _rate(each: Checkpoint, operation: str, value: float) -> float:
    return value if each.operation == operation else math.nan


def _tick(value: float) -> str:
    if value == 0:
        return "0"
    number, unit = format_rate(value).split(" ")
    return f"{float(number):g} {unit}"


def lines(result: Result) -> list[tuple[str, str]]:
    """Return (name, words) of the lines under the verdict on a terminal."""
    figures = result.checkpointing
    if figures is None or (figures.save is None and figures.load is None):
        return [("checkpoints", "none was seen through")]
    found = [("checkpoint", f"{text.size(figures.size_bytes)} in {text.count(figures.files)} files")]
    for verb, each in (("save", figures.save), ("load", figures.load)):
        if each is not None:
            found += [(verb, _line(each)), ("", _compatible(each))]
    if figures.save is not None:
        found.append(("stages", _stages(result)))
    found.append(("client", f"{text.percent(result.metrics.client_cpu_ratio, 0)} CPU"))
    return found


def _line(each: OperationFigures) -> str:
    spread = f"± {text.duration(each.seconds_stdev)}, at most {text.duration(each.seconds_max)}"
    rate = f"{text.rate(each.bytes_per_second)}, at least {text.rate(each.bytes_per_second_min)}"
    return f"{text.duration(each.seconds)} {spread}; {rate} ({each.count} times, slowest rank)"


def _compatible(each: OperationFigures) -> str:
    gib = each.bytes_per_second_compatible / GiB
    return f"{text.duration(each.seconds_compatible)}, {gib:.4g} GiB/s by rank 0's clock, as the reference reports it"


def _stages(result: Result) -> str:
    """Return how the saves' time was spent, all ranks together."""
    sums = {
        stage: sum(each.stage_seconds.get(stage, 0.0) for each in result.checkpoints if each.operation == SAVE)
        for stage in _SAVE_STAGES
    }
    whole = sum(sums.values())
    words = {STAGE: "waiting for content", WRITE: "writing", COMMIT: "making durable"}
    return ", ".join(f"{text.percent(share(sums[stage], whole), 0)} {words[stage]}" for stage in _SAVE_STAGES)


def variables(result: Result) -> dict[str, Any]:
    """Return the template's variables of the section on checkpoints."""
    return {"checkpoints": rows(result), "checkpoints_left": max(0, len(result.checkpoints) - OPERATIONS_MAX)}
