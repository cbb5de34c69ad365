"""Did the bytes really come from the storage? The ledger against itself, the plan, the kernel and the network."""

from typing import Final

from stoker.bench.rules.catalogue import found
from stoker.bench.rules.facts import (
    AGREEMENT_RATIO_MAX,
    Comparison,
    cache_ratio,
    compare_counters,
    is_object_store,
    is_plain,
    percent,
    reads_store,
    share,
)
from stoker.core.result import Finding, Result
from stoker.core.units import format_bytes

_DEVICE_FACTOR: Final = 2.0


def check_target(result: Result) -> list[Finding]:
    """Something outside this process was read at all."""
    if reads_store(result):
        return []
    evidence = result.evidence
    what = evidence.io_mode or evidence.target_kind or "unknown"
    read = format_bytes(evidence.ledger.requested_bytes)
    return [found("evidence.target", expected="a store", observed=f"target of kind {what}, {read} requested")]


def check_wanted(result: Result) -> list[Finding]:
    """What was delivered is what the plan asked for."""
    ledger = result.evidence.ledger
    if abs(ledger.delivered_bytes - ledger.wanted_bytes) <= AGREEMENT_RATIO_MAX * ledger.wanted_bytes:
        return []
    return [
        found(
            "evidence.wanted",
            expected=f"{format_bytes(ledger.wanted_bytes)} wanted",
            observed=f"{format_bytes(ledger.delivered_bytes)} delivered",
        )
    ]


def check_payload(result: Result) -> list[Finding]:
    """A format that stores payload as it is cannot deliver more than was read."""
    ledger = result.evidence.ledger
    if not reads_store(result) or not is_plain(result) or ledger.delivered_bytes <= ledger.requested_bytes:
        return []
    return [
        found(
            "evidence.payload",
            expected=f"at least {format_bytes(ledger.delivered_bytes)} requested",
            observed=f"{format_bytes(ledger.requested_bytes)} requested",
        )
    ]


def check_ledger(result: Result) -> list[Finding]:
    """Every requested byte has an origin, and only one."""
    ledger = result.evidence.ledger
    origins = ledger.from_store_bytes + ledger.from_cache_bytes
    apart = abs(ledger.requested_bytes - origins)
    if not reads_store(result) or apart <= AGREEMENT_RATIO_MAX * ledger.requested_bytes:
        return []
    return [
        found(
            "evidence.ledger",
            expected=f"{format_bytes(ledger.requested_bytes)} requested",
            observed=f"{format_bytes(origins)} with a known origin",
        )
    ]


def check_cache(result: Result) -> list[Finding]:
    """This host's page cache served next to nothing."""
    ratio = cache_ratio(result)
    if not reads_store(result) or ratio <= AGREEMENT_RATIO_MAX:
        return []
    cached = format_bytes(result.evidence.ledger.from_cache_bytes)
    observed = f"served from the page cache: {percent(ratio)} ({cached})"
    return [found("evidence.cache", expected=f"at most {percent(AGREEMENT_RATIO_MAX, 0)}", observed=observed)]


def check_counters(result: Result) -> list[Finding]:
    """Someone else counted at least what the ledger claims came from the store."""
    comparison = compare_counters(result)
    if not reads_store(result) or not comparison.unconfirmed:
        return []
    return [found("evidence.counters", expected=_claim(comparison), observed=_count(comparison))]


def check_excess(result: Result) -> list[Finding]:
    """Nobody counted much more than the ledger claims."""
    comparison = compare_counters(result)
    if not reads_store(result) or not comparison.exceeded:
        return []
    return [found("evidence.excess", expected=_claim(comparison), observed=_count(comparison))]


def _claim(comparison: Comparison) -> str:
    return f"{format_bytes(comparison.claimed_bytes)} claimed from the store"


def _count(comparison: Comparison) -> str:
    if comparison.counted_bytes is None or comparison.difference_ratio is None:
        return f"no counter ({comparison.counter} is not to be had here)"
    apart = percent(abs(comparison.difference_ratio))
    return f"{format_bytes(comparison.counted_bytes)} counted ({comparison.counter}), {apart} apart"


def check_epochs(result: Result) -> list[Finding]:
    """Later epochs did not find the dataset in the page cache that an earlier one filled."""
    if result.evidence.io_mode in ("direct", "memory", "null") or is_object_store(result):
        return []
    first = min((epoch.epoch for epoch in result.epochs), default=0)
    later = [epoch for epoch in result.epochs if epoch.epoch > first and epoch.cached_before_ratio is not None]
    warm = [epoch for epoch in later if (epoch.cached_before_ratio or 0.0) > AGREEMENT_RATIO_MAX]
    if not warm:
        return []
    worst = max(warm, key=lambda epoch: epoch.cached_before_ratio or 0.0)
    observed = f"{percent(worst.cached_before_ratio or 0.0)} of the dataset was cached"
    expected = f"at most {percent(AGREEMENT_RATIO_MAX, 0)}"
    where = f"epoch {worst.epoch}, {len(warm)} such in all"
    return [found("evidence.epochs", expected=expected, observed=observed, where=where)]


def check_io_mode(result: Result) -> list[Finding]:
    """Reading was done the way that was asked for."""
    asked, done = result.evidence.io_mode_requested, result.evidence.io_mode
    if not asked or asked == done:
        return []
    where = "; ".join(result.evidence.notes[:3])
    return [found("evidence.io_mode", expected=asked, observed=done or "unknown", where=where)]


def check_device(result: Result) -> list[Finding]:
    """Tell of a block device that moved far more or far less than the ledger claims."""
    moved, claimed = result.evidence.counters.device_read_bytes, result.evidence.ledger.from_store_bytes
    if moved is None or not reads_store(result) or is_object_store(result) or claimed <= 0:
        return []
    if 1 / _DEVICE_FACTOR <= share(moved, claimed) <= _DEVICE_FACTOR:
        return []
    observed = f"{format_bytes(moved)} read by the device"
    expected = f"about {format_bytes(claimed)} claimed from the store"
    return [found("evidence.device", expected=expected, observed=observed, where=result.evidence.device)]
