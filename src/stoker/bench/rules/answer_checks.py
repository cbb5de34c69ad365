"""Is it fast enough, and if not, is that the storage's doing? Utilisation and the client's share."""

import math

from stoker.bench.rules.catalogue import found
from stoker.bench.rules.facts import CLIENT_CPU_RATIO_MAX, client_stages_lead, client_stall_share, measured, percent
from stoker.core.result import Finding, Result


def au_told(result: Result) -> str:
    """Return AU and its interval for people, `96.42 % (95 % interval 95.80 to 97.01 %)`."""
    metrics = result.metrics
    if not measured(result) or not all(
        math.isfinite(r) for r in (metrics.au_ratio, metrics.au_low_ratio, metrics.au_high_ratio)
    ):
        return "unknown"
    low, high = metrics.au_low_ratio * 100, metrics.au_high_ratio * 100
    return f"{percent(metrics.au_ratio, 2)} (95 % interval {low:.2f} to {high:.2f} %)"


def _needed(result: Result) -> str:
    return f"at least {percent(result.plan.au_threshold_ratio, 2)}"


def check_threshold(result: Result) -> list[Finding]:
    """The whole interval lies below the threshold: the accelerators are not kept busy."""
    if not measured(result) or result.metrics.au_high_ratio >= result.plan.au_threshold_ratio:
        return []
    return [found("au.threshold", expected=_needed(result), observed=au_told(result), where=_slow_stage(result))]


def _slow_stage(result: Result) -> str:
    metrics = result.metrics
    if not metrics.limiting_stage:
        return ""
    return f"{percent(metrics.limiting_share_ratio, 0)} of the stall in {metrics.limiting_stage}"


def check_sustained(result: Result) -> list[Finding]:
    """Only what was read before the measured steps began carries utilisation over the threshold."""
    metrics, threshold = result.metrics, result.plan.au_threshold_ratio
    if not measured(result) or metrics.au_sustained_ratio >= threshold or metrics.au_high_ratio < threshold:
        return []
    observed = f"{percent(metrics.au_sustained_ratio, 2)} surely kept up over {metrics.steps} steps"
    return [found("au.sustained", expected=_needed(result), observed=observed)]


def check_interval(result: Result) -> list[Finding]:
    """The threshold lies inside the interval: the run cannot decide."""
    metrics, threshold = result.metrics, result.plan.au_threshold_ratio
    if not measured(result) or not metrics.au_low_ratio < threshold <= metrics.au_high_ratio:
        return []
    where = f"over {metrics.steps} steps"
    return [found("au.interval", expected=_needed(result), observed=au_told(result), where=where)]


def check_client(result: Result) -> list[Finding]:
    """Below the threshold, the client's CPU or its own stages are what held the accelerators up."""
    metrics, threshold = result.metrics, result.plan.au_threshold_ratio
    below = measured(result) and metrics.au_ratio < threshold and metrics.au_low_ratio < threshold
    reasons = []
    if metrics.client_cpu_ratio > CLIENT_CPU_RATIO_MAX:
        reasons.append(f"{percent(metrics.client_cpu_ratio, 0)} of the usable CPU time was spent")
    if client_stages_lead(result):
        stall = percent(client_stall_share(result), 0)
        reasons.append(f"the limiting stage is {metrics.limiting_stage}; {stall} of the stall is the client's own")
    if not below or not reasons:
        return []
    return [
        found(
            "client.limit",
            expected=f"at most {percent(CLIENT_CPU_RATIO_MAX, 0)} CPU and a limiting stage of the store",
            observed="; ".join(reasons),
        )
    ]


def check_client_busy(result: Result) -> list[Finding]:
    """Tell that the client has nothing left, although the threshold was met."""
    if result.metrics.client_cpu_ratio <= CLIENT_CPU_RATIO_MAX or check_client(result):
        return []
    observed = f"{percent(result.metrics.client_cpu_ratio, 0)} of the usable CPU time was spent"
    return [found("client.busy", expected=f"at most {percent(CLIENT_CPU_RATIO_MAX, 0)}", observed=observed)]
