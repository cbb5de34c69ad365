"""Do the figures of a KV cache rest on storage? On reads that really went there, of what was written durably."""

from typing import Final

from stoker.bench.rules.catalogue import found
from stoker.bench.rules.facts import (
    AGREEMENT_RATIO_MAX,
    CLIENT_CPU_RATIO_MAX,
    NO_STORE_KINDS,
    NO_STORE_MODES,
    is_object_store,
    percent,
    share,
)
from stoker.core.kvcache import STORAGE, KvTrial, TierCounts
from stoker.core.result import Finding, Result
from stoker.core.units import format_bytes, format_rate, format_seconds

MEMORY_SHARE_MAX: Final = 0.5
CONTENT_SHARE_MAX: Final = 0.5
VARIATION_MAX: Final = 0.25
ENTRIES_MIN: Final = 100
GOALS: Final = {"storage_write_device": 0.5, "storage_read_device": 0.2, "cpu_read": 0.15}
"""P95 in seconds that the reference's profile of latency calls good."""
HIT_GOAL: Final = 0.3


def storage_of(trial: KvTrial) -> TierCounts:
    """Return what the storage tier did in a trial."""
    return trial.tiers.get(STORAGE, TierCounts())


def _total(result: Result, name: str) -> int:
    return sum(getattr(storage_of(trial), name) for trial in result.trials)


def check_target(result: Result) -> list[Finding]:
    """Something outside this process held the entries."""
    evidence = result.evidence
    if evidence.io_mode not in NO_STORE_MODES and evidence.target_kind not in NO_STORE_KINDS:
        return []
    what = evidence.io_mode or evidence.target_kind
    return [found("kvcache.target", expected="a store", observed=f"target of kind {what}")]


def check_done(result: Result) -> list[Finding]:
    """Every planned trial came to its end on all ranks."""
    what = result.plan.kvcache
    if what is None or result.status != "complete":
        return []
    whole = sum(trial.complete for trial in result.trials)
    if whole == what.trials:
        return []
    return [found("kvcache.done", expected=f"{what.trials} trials", observed=f"{whole} were seen through")]


def check_storage(result: Result) -> list[Finding]:
    """Every trial read from storage, and a run that only writes wrote there."""
    what = result.plan.kvcache
    if what is None or check_target(result) or not result.trials:
        return []
    names = ("writes", "demote_writes") if what.mode == "prefill" else ("reads",)
    idle = [trial for trial in result.trials if not sum(getattr(storage_of(trial), name) for name in names)]
    if not idle:
        return []
    verb = "wrote to" if what.mode == "prefill" else "read from"
    told = ", ".join(str(trial.number) for trial in idle[:5])
    observed = f"{len(idle)} of {len(result.trials)} trials never {verb} storage"
    return [found("kvcache.storage", expected="all of them", observed=observed, where=f"trial {told}")]


def memory_share(result: Result) -> float:
    """Return the share of the bytes read that came from tiers in memory."""
    every = [tier for trial in result.trials for tier in trial.tiers.items()]
    whole = sum(tier.read_bytes for _, tier in every)
    return share(sum(tier.read_bytes for name, tier in every if name != STORAGE), whole)


def check_memory(result: Result) -> list[Finding]:
    """Storage, not memory, gave most of what was read."""
    part = memory_share(result)
    if part <= MEMORY_SHARE_MAX:
        return []
    observed = f"{percent(part, 0)} of the bytes read came from tiers in memory"
    return [found("kvcache.memory", expected=f"at most {percent(MEMORY_SHARE_MAX, 0)}", observed=observed)]


def check_tiers(result: Result) -> list[Finding]:
    """Tell that a part of the reads never went to storage."""
    part = memory_share(result)
    if part <= AGREEMENT_RATIO_MAX or check_memory(result):
        return []
    observed = f"{percent(part, 0)} of the bytes read came from tiers in memory"
    return [found("kvcache.tiers", expected="0", observed=observed)]


def check_durable(result: Result) -> list[Finding]:
    """An entry survived power loss when its write was over."""
    what = result.plan.kvcache
    if what is None or check_target(result) or not _total(result, "writes") + _total(result, "demote_writes"):
        return []
    if what.fsync == "none":
        observed = "nothing was synced (fsync none)"
    elif result.evidence.durable is not True:
        observed = "the store does not promise that a finished write survives"
    else:
        return []
    return [found("kvcache.durable", expected="durable", observed=observed)]


def check_written(result: Result) -> list[Finding]:
    """The kernel counted at least what was written."""
    if is_object_store(result) or check_target(result):
        return []
    asked = result.evidence.ledger.written_bytes
    counters = result.evidence.counters
    counted = counters.device_write_bytes if result.evidence.device else counters.process_write_bytes
    if not asked or (counted is not None and counted >= (1 - AGREEMENT_RATIO_MAX) * asked):
        return []
    observed = "nobody counted" if counted is None else f"{format_bytes(counted)} counted"
    return [found("kvcache.written", expected=f"{format_bytes(asked)} written", observed=observed)]


def check_client(result: Result) -> list[Finding]:
    """The client had time left: for reading, writing, and for making and checking content."""
    reasons = []
    if result.metrics.client_cpu_ratio > CLIENT_CPU_RATIO_MAX:
        reasons.append(f"{percent(result.metrics.client_cpu_ratio, 0)} of the usable CPU time was spent")
    content = sum(trial.counts.content_seconds for trial in result.trials)
    moving = sum(trial.counts.storage_io_seconds for trial in result.trials)
    if share(content, content + moving) > CONTENT_SHARE_MAX:
        reasons.append(f"{percent(share(content, content + moving), 0)} of the time went into content")
    if not reasons:
        return []
    expected = f"at most {percent(CLIENT_CPU_RATIO_MAX, 0)} CPU, and half of the time for content"
    return [found("kvcache.client", expected=expected, observed="; ".join(reasons))]


def check_break_even(result: Result) -> list[Finding]:
    """Reading is faster than computing anew, where it was told how fast that is."""
    what, figures = result.plan.kvcache, result.kvcache
    if what is None or figures is None or not what.prefill_required or what.mode == "prefill":
        return []
    need = figures.break_even_bytes_per_second
    if figures.read_bytes_per_second >= need:
        return []
    expected = f"at least {format_rate(need)}, what computing anew is worth"
    return [found("kvcache.break_even", expected=expected, observed=format_rate(figures.read_bytes_per_second))]


def check_few(result: Result) -> list[Finding]:
    """There were enough entries for a 95th percentile to be more than chance."""
    what = result.plan.kvcache
    if what is None or not result.trials:
        return []
    writes = what.mode == "prefill"
    moved = _total(result, "writes") + _total(result, "demote_writes") if writes else _total(result, "reads")
    if moved >= ENTRIES_MIN:
        return []
    verb = "written to" if writes else "read from"
    return [found("kvcache.few", expected=f"at least {ENTRIES_MIN}", observed=f"{moved} entries were {verb} storage")]


def check_variation(result: Result) -> list[Finding]:
    """Tell that trials lie far apart."""
    figures = result.kvcache
    if figures is None or figures.trials < 2 or figures.read_variation_ratio <= VARIATION_MAX:
        return []
    observed = f"{percent(figures.read_variation_ratio, 0)} between {figures.trials} trials"
    return [found("kvcache.variation", expected=f"at most {percent(VARIATION_MAX, 0)}", observed=observed)]


def check_full(result: Result) -> list[Finding]:
    """Tell that nothing had to be deleted: the cache never came to its steady state."""
    if not result.trials or _total(result, "deletes") or not _total(result, "writes"):
        return []
    held = format_bytes(max(storage_of(trial).bytes_max for trial in result.trials))
    return [found("kvcache.full", expected="deletes", observed=f"at most {held} lay in storage, and nothing had to go")]


def goals(result: Result) -> list[tuple[str, bool]]:
    """Return the reference's goals for the profile that was asked for, as words and whether they were met."""
    what, figures = result.plan.kvcache, result.kvcache
    if what is None or figures is None or not figures.trials:
        return []
    if what.profile == "throughput":
        return [(f"bandwidth {format_rate(figures.read_bytes_per_second)}", figures.read_bytes_per_second > 0)]
    told = []
    for name, limit in GOALS.items():
        known = figures.latency_seconds.get(name)
        if known is not None:
            words = f"P95 of {name.replace('_', ' ')} {format_seconds(known['p95'])}, goal {format_seconds(limit)}"
            told.append((words, known["p95"] < limit))
    return [*told, (f"hits {percent(figures.hit_ratio, 0)}, goal {percent(HIT_GOAL, 0)}", figures.hit_ratio > HIT_GOAL)]


def check_goals(result: Result) -> list[Finding]:
    """Tell which of the reference's goals were missed; they are for whoever looks, and decide nothing."""
    missed = [words for words, met in goals(result) if not met]
    if not missed:
        return []
    size = format_bytes(result.kvcache.entry_bytes_mean) if result.kvcache is not None else ""
    where = f"entries of {size}" if size else ""
    return [found("kvcache.goals", expected="the goals of its profile", observed="; ".join(missed), where=where)]
