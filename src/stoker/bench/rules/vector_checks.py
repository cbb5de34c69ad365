"""Was the collection whole, was every request answered, how true were the answers, and did any storage take part?"""

import math
from typing import Final

from stoker.bench.rules.catalogue import found
from stoker.bench.rules.facts import CLIENT_CPU_RATIO_MAX, percent
from stoker.core.result import Finding, Result
from stoker.core.vectors import LOADING, VectorFigures, VectorPlan

REQUESTS_MIN: Final = 1000
READS_MIN: Final = 0.1
"""Reads a query: what is less may be anybody's."""
IN_MEMORY: Final = ("milvus-lite",)
"""Databases whose indexes lie in memory whatever lies on the storage."""


def _searched(result: Result) -> tuple[VectorPlan, VectorFigures] | None:
    """Return the plan and the figures of a search that came to its end, None for all else."""
    what, figures = result.plan.vectors, result.vectors
    if what is None or figures is None or what.work == LOADING or result.status != "complete":
        return None
    return what, figures


def check_loaded(result: Result) -> list[Finding]:
    """A loading that came to its end has put in every vector."""
    what, figures = result.plan.vectors, result.vectors
    if what is None or what.work != LOADING or result.status != "complete":
        return []
    there = figures.vectors if figures is not None else 0
    if there == what.recipe.vectors:
        return []
    return [found("vector.loaded", expected=f"{what.recipe.vectors} vectors", observed=f"{there} vectors")]


def check_answered(result: Result) -> list[Finding]:
    """No request failed, and there were some."""
    both = _searched(result)
    if both is None or (both[1].queries and not both[1].failed_requests):
        return []
    error = next((rank.vectors.error for rank in result.ranks if rank.vectors and rank.vectors.error), "")
    observed = f"{both[1].failed_requests} of {both[1].requests} requests failed" + (
        f"; the first: {error}" if error else ""
    )
    return [found("vector.answered", expected="an answer to each", observed=observed)]


def check_truth(result: Result) -> list[Finding]:
    """The exact answers are there and cover all."""
    both = _searched(result)
    if both is None:
        return []
    truth = both[1].truth
    if truth is None:
        return [found("vector.truth", expected="exact answers", observed="none were kept")]
    if truth.ok and truth.total > 0 and truth.copied == truth.total:
        return []
    observed = truth.reason or f"{truth.copied} of {truth.total} vectors were looked at"
    return [found("vector.truth", expected="all vectors", observed=observed)]


def check_recall(result: Result) -> list[Finding]:
    """The recall is known, possible and not zero."""
    both = _searched(result)
    if both is None:
        return []
    recall = both[1].recall
    mean = recall.mean if recall is not None else math.nan
    if recall is not None and recall.queries and 0 < mean <= 1:
        return []
    observed = f"recall {mean:.4g} of {recall.queries} queries" if recall is not None else "no recall"
    return [found("vector.recall", expected="above 0, at most 1", observed=observed)]


def check_target(result: Result) -> list[Finding]:
    """The recall is the one that was asked for."""
    both = _searched(result)
    if both is None or both[1].recall is None or both[1].recall.mean >= both[0].recall_target:
        return []
    expected = f"at least {both[0].recall_target:.4g}"
    return [found("vector.target", expected=expected, observed=f"{both[1].recall.mean:.4f}")]


def check_unread(result: Result) -> list[Finding]:
    """Where the device was counted, it was read."""
    both = _searched(result)
    if both is None or not both[1].queries:
        return []
    if both[0].engine in IN_MEMORY:
        return [found("vector.unread", expected="an index on storage", observed=f"{both[0].engine} searches in memory")]
    reads = both[1].reads_per_query
    if reads is None or reads >= READS_MIN:
        return []
    observed = f"{reads:.2g} reads a query of {', '.join(both[1].devices) or 'the device'}"
    return [found("vector.unread", expected=f"at least {READS_MIN}", observed=observed)]


def check_client(result: Result) -> list[Finding]:
    """Neither a process nor a host of the client was busy nearly all the time."""
    if _searched(result) is None:
        return []
    busy = [rank.cpu_seconds / rank.wall_seconds for rank in result.ranks if rank.wall_seconds > 0]
    most, host = max(busy, default=0.0), result.metrics.client_cpu_ratio
    if max(most, host) < CLIENT_CPU_RATIO_MAX:
        return []
    observed = f"a process was busy {percent(most, 0)} of the time, the host's usable CPUs {percent(host, 0)}"
    return [found("vector.client", expected=f"below {percent(CLIENT_CPU_RATIO_MAX, 0)}", observed=observed)]


def check_uncounted(result: Result) -> list[Finding]:
    """Tell that nobody counted what the storage did."""
    both = _searched(result)
    if both is None or both[1].device_reads is not None:
        return []
    return [found("vector.uncounted", expected="a count", observed=both[1].disk_reason or "nobody counted")]


def check_data(result: Result) -> list[Finding]:
    """Tell of vectors without neighbours."""
    both = _searched(result)
    if both is None or not both[0].ours or both[0].recipe.distribution == "clustered":
        return []
    return [found("vector.data", expected="clustered", observed=both[0].recipe.distribution)]


def check_few(result: Result) -> list[Finding]:
    """Tell of a tail that is a handful of requests."""
    both = _searched(result)
    if both is None or both[1].requests >= REQUESTS_MIN:
        return []
    return [found("vector.few", expected=f"at least {REQUESTS_MIN}", observed=f"{both[1].requests} requests")]
