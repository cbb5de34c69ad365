"""What a report shows of a collection of vectors: tiles and rows on the page, lines on a terminal."""

from typing import Any

import msgspec

from stoker.bench.report import text
from stoker.core.result import Result
from stoker.core.vectors import LOADING, QUERY_COUNT, VectorFigures, VectorPlan


def _both(result: Result) -> tuple[VectorPlan, VectorFigures]:
    assert result.plan.vectors is not None
    return result.plan.vectors, result.vectors or VectorFigures()


def tiles(result: Result) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures on the first screen."""
    what, figures = _both(result)
    if what.work == LOADING:
        return [
            (
                "loaded",
                f"{text.decimal(figures.vectors_per_second)} vectors/s",
                f"{text.count(figures.vectors)} vectors",
            ),
            ("ready after", text.duration(figures.built_seconds), "flush, index and compaction, from the last vector"),
            ("client CPU", text.percent(result.metrics.client_cpu_ratio, 0), "of the usable CPUs"),
        ]
    if not figures.queries:
        return [("queries", "0", "none was answered, so there are no figures")]
    times, recall = figures.latencies, figures.recall
    return [
        ("queries", f"{text.decimal(figures.queries_per_second)} /s", f"{text.count(figures.queries)} answered"),
        ("recall", text.percent(recall.mean if recall else None, 2), _spread(result)),
        ("request, 99 %", text.duration(times.get("p99")), f"mean {text.duration(times.get('mean'))}"),
        ("reads a query", _reads(figures), figures.disk_reason or "of the device under the collection"),
        ("client CPU", text.percent(result.metrics.client_cpu_ratio, 0), "of the usable CPUs"),
    ]


def _spread(result: Result) -> str:
    recall = result.vectors.recall if result.vectors is not None else None
    if recall is None:
        return "no exact answers"
    return f"at {recall.k}, over {text.count(recall.queries)} queries; the worst 5 % below {text.percent(recall.p5, 1)}"


def _reads(figures: VectorFigures) -> str:
    if figures.reads_per_query is None:
        return text.DASH
    mean = text.size((figures.device_read_bytes or 0) / max(1, figures.queries))
    return f"{text.decimal(figures.reads_per_query)} ({mean})"


def asked(result: Result) -> list[tuple[str, str]]:
    """Return what was asked for, as (name, value)."""
    what, figures = _both(result)
    recipe, truth = what.recipe, figures.truth
    parameters = ", ".join(f"{name} {value}" for name, value in what.index.parameters.items())
    until = f"{text.count(what.queries)} queries" if what.mode == QUERY_COUNT else text.duration(what.seconds)
    found = ", ".join(f"{name} {value}" for name, value in figures.index_found.items())
    exact = text.DASH if truth is None else _truth(result)
    return [
        ("database", text.plain(result.plan.target_url, 120)),
        ("version", text.plain(figures.engine_version, 80) or text.DASH),
        ("collection", text.plain(what.collection, 80)),
        (
            "vectors",
            f"{text.count(recipe.vectors)} of {recipe.dimension} numbers, {text.plain(recipe.distribution, 20)}",
        ),
        (
            "index",
            f"{text.plain(what.index.kind, 20)}, {text.plain(what.index.metric, 10)}, {text.plain(parameters, 120)}",
        ),
        ("index as told", text.plain(found, 300) or text.DASH),
        ("processes", text.count(result.plan.ranks)),
        ("a request", f"{text.count(what.batch)} queries, {text.count(what.k)} neighbours, {what.effort} candidates"),
        ("until", until),
        ("exact answers", exact),
        ("storage", text.safe_value("storage", what.storage_root) or text.DASH),
    ]


def _truth(result: Result) -> str:
    truth = result.vectors.truth if result.vectors is not None else None
    assert truth is not None
    how = f"from the copy {text.plain(truth.flat, 80)}" if truth.flat else "worked out by the client"
    seconds = text.duration(truth.seconds)
    return f"{text.count(truth.copied)} of {text.count(truth.total)} vectors, {how}, in {seconds}"


def lines(result: Result) -> list[tuple[str, str]]:
    """Return (name, words) of the lines under the verdict on a terminal."""
    what, figures = _both(result)
    client = ("client", f"{text.percent(result.metrics.client_cpu_ratio, 0)} CPU")
    if what.work == LOADING:
        loaded = f"{text.count(figures.vectors)} vectors, {text.decimal(figures.vectors_per_second)} vectors/s"
        return [("loaded", loaded), ("ready", f"{text.duration(figures.built_seconds)} after the last vector"), client]
    if not figures.queries:
        return [("queries", "none was answered"), client]
    shown = ("mean", "p50", "p95", "p99", "p99.9", "max")
    quantiles = ", ".join(f"{name} {text.duration(figures.latencies.get(name))}" for name in shown)
    recall = text.percent(figures.recall.mean, 2) if figures.recall is not None else text.DASH
    reads = f"{_reads(figures)} a query" if figures.reads_per_query is not None else figures.disk_reason
    return [
        ("queries", f"{text.decimal(figures.queries_per_second)} /s, {text.count(figures.queries)} in all"),
        ("request", quantiles),
        ("recall", f"{recall} {_spread(result)}"),
        ("device", text.plain(f"{reads}", 200)),
        client,
    ]


def summary(result: Result) -> dict[str, Any]:
    """Return the figures as plain data, nothing for a run of another workload."""
    return {} if result.vectors is None else {"vectors": msgspec.to_builtins(result.vectors)}
