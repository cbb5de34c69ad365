"""Did the run happen as planned? Status, ranks, figures, steps, coverage, clock, errors."""

import math
from typing import Final

from stoker.bench.rules.catalogue import found
from stoker.core.ledger import Ledger
from stoker.core.result import Finding, RankResult, Result

STEPS_MIN: Final = 5
CLOCK_STEP_SECONDS_MAX: Final = 1.0
_RATIO_MAX: Final = 1.001  # a sleep that returned a hair early, or rounding
_TOLD_MAX: Final = 5


def check_complete(result: Result) -> list[Finding]:
    """A partial run is labelled, whatever it measured."""
    if result.status != "partial":
        return []
    return [found("run.complete", expected="complete", observed=result.reason or "partial, for no recorded reason")]


def check_failed(result: Result) -> list[Finding]:
    """A failed run, or a status nobody knows, is invalid."""
    if result.status in ("complete", "partial"):
        return []
    status = "" if result.status == "failed" else f"status {result.status}"
    observed = ": ".join(filter(None, (status, result.reason))) or "failed, for no recorded reason"
    return [found("run.failed", expected="complete", observed=observed)]


def check_rank_errors(result: Result) -> list[Finding]:
    """No rank may have ended in an error, unless the whole run was cut short and says so."""
    failed = [rank for rank in result.ranks if rank.error]
    if not failed:
        return []
    observed = f"{len(failed)} of {len(result.ranks)} ranks; the first: {failed[0].error}"
    return [found("rank.errors", expected="no errors", observed=observed, where=_ranks_told(failed))]


def _ranks_told(ranks: list[RankResult]) -> str:
    told = [f"rank {rank.rank}" + (f" on {rank.host}" if rank.host else "") for rank in ranks[:_TOLD_MAX]]
    return ", ".join(told) + (" …" if len(ranks) > _TOLD_MAX else "")


def check_ranks(result: Result) -> list[Finding]:
    """Every planned rank stands in the result, once."""
    expected = set(range(result.plan.ranks))
    numbers = [rank.rank for rank in result.ranks]
    if len(numbers) == len(expected) and set(numbers) == expected:
        return []
    missing = sorted(expected - set(numbers))
    where = ", ".join(f"rank {number}" for number in missing[:_TOLD_MAX]) + (" …" if len(missing) > _TOLD_MAX else "")
    observed = f"{len(numbers)} ranks, {len(set(numbers) & expected)} of the planned ones"
    return [found("rank.missing", expected=f"{len(expected)} ranks", observed=observed, where=where)]


def check_figures(result: Result) -> list[Finding]:
    """The figures that the answer rests on are possible ones."""
    metrics = result.metrics
    ratios = {
        "au_ratio": metrics.au_ratio,
        "au_low_ratio": metrics.au_low_ratio,
        "au_high_ratio": metrics.au_high_ratio,
        "au_threshold_ratio": result.plan.au_threshold_ratio,
    }
    wrong = [f"{name} = {value:g}" for name, value in ratios.items() if not 0.0 <= value <= _RATIO_MAX]
    if metrics.au_low_ratio > metrics.au_high_ratio:
        wrong.append(f"the interval begins at {metrics.au_low_ratio:g} and ends at {metrics.au_high_ratio:g}")
    if not math.isfinite(metrics.client_cpu_ratio) or metrics.client_cpu_ratio < 0:
        wrong.append(f"client_cpu_ratio = {metrics.client_cpu_ratio:g}")
    wrong += _negative_counts(result)
    return [found("run.figures", expected="possible figures", observed="; ".join(wrong))] if wrong else []


def _negative_counts(result: Result) -> list[str]:
    ledger = result.evidence.ledger
    counts = {name: getattr(ledger, name) for name in Ledger.__struct_fields__}
    counts["steps"] = result.metrics.steps
    return [f"{name} = {count}" for name, count in counts.items() if count < 0]


def check_steps(result: Result) -> list[Finding]:
    """Enough steps were kept for a figure and its interval to mean something."""
    steps = result.metrics.steps
    if steps >= STEPS_MIN:
        return []
    return [found("run.steps", expected=f"at least {STEPS_MIN} steps", observed=f"{steps} steps")]


def check_coverage(result: Result) -> list[Finding]:
    """Each usable sample was visited exactly once in every epoch that was not cut short."""
    broken = [epoch for epoch in result.epochs if epoch.coverage_exact is False]
    if not broken:
        return []
    where = ", ".join(f"epoch {epoch.epoch} ({epoch.phase})" for epoch in broken[:_TOLD_MAX])
    observed = f"{len(broken)} of {len(result.epochs)} epochs differ"
    return [found("coverage.exact", expected="each sample once", observed=observed, where=where)]


def check_dropped(result: Result) -> list[Finding]:
    """Tell of samples that no rank visited because they do not fill a batch on every rank."""
    dropped = [epoch for epoch in result.epochs if epoch.dropped_samples > 0]
    if not dropped:
        return []
    most = max(dropped, key=lambda epoch: epoch.dropped_samples)
    observed = f"{most.dropped_samples} of {most.samples + most.dropped_samples} samples"
    return [found("coverage.dropped", expected="0", observed=observed, where=f"epoch {most.epoch} ({most.phase})")]


def check_clock(result: Result) -> list[Finding]:
    """Tell of a wall clock that was stepped while the run lasted."""
    step_seconds = result.clock_step_seconds
    if abs(step_seconds) <= CLOCK_STEP_SECONDS_MAX:
        return []
    return [found("run.clock", expected="at most 1 s", observed=f"stepped by {step_seconds:+.1f} s")]


def check_errors(result: Result) -> list[Finding]:
    """Tell of operations that failed."""
    errors = result.evidence.ledger.errors
    return [found("run.errors", expected="0", observed=f"{errors} failed operations")] if errors else []


def check_retries(result: Result) -> list[Finding]:
    """Tell of operations that were repeated."""
    retries = result.evidence.ledger.retries
    return [found("run.retries", expected="0", observed=f"{retries} repeated operations")] if retries else []


def check_changed(result: Result) -> list[Finding]:
    """Tell where the workload departs from the model it is named after."""
    if not result.plan.deviations:
        return []
    return [found("scope.changed", expected=f"{result.plan.model} as it is", observed=" ".join(result.plan.deviations))]


def check_quick(result: Result) -> list[Finding]:
    """Tell that a quick look is no submission."""
    if result.job.verb != "feed":
        return []
    return [found("scope.quick", expected="a full run", observed="a sample of the dataset, one run, no warm-up run")]
