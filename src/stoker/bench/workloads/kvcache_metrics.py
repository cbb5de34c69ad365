"""From what the ranks tell of their trials to the run's: each trial, and all of them together. Pure.

Rates are the sum of the ranks' own, each over its own time, then the mean over trials, as the rules have it. Latencies
are pooled: one histogram of all ranks and trials; the largest P95 of a rank, which the rules publish, stands beside.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from stoker.bench.workloads.reports import RankReport
from stoker.core.histogram import Histogram, merge_encoded
from stoker.core.kvcache import STORAGE, KvCounts, KvFigures, KvNote, KvPlan, KvTrial, TierCounts
from stoker.core.units import GiB

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999, "max": 1.0}
Parts = list[tuple[int, KvNote]]


def combine_trials(reports: Sequence[RankReport], *, ranks: int) -> list[KvTrial]:
    """Return the trials of the run in their order; `ranks` were to take part in each."""
    parts: dict[int, Parts] = {}
    for report in reports:
        for note in report.trials:
            parts.setdefault(note.number, []).append((report.start.rank, note))
    return [_combined(parts[number], ranks) for number in sorted(parts)]


def _combined(parts: Parts, ranks: int) -> KvTrial:
    notes = [note for _, note in parts]
    tiers, counts = _sums(notes)
    histograms = merge_encoded(note.histograms for note in notes)
    lookups = counts.hits + counts.misses
    return KvTrial(
        number=notes[0].number,
        started_utc=min(note.started_utc for note in notes),
        ranks=len(parts),
        seconds=max(note.seconds for note in notes),
        tiers=tiers,
        counts=counts,
        read_bytes_per_second=sum(_rate(read_bytes(note), note.seconds) for note in notes),
        write_bytes_per_second=sum(_rate(written_bytes(note), note.seconds) for note in notes),
        tokens_per_second=sum(_rate(note.counts.tokens, note.seconds) for note in notes),
        storage_tokens_per_second=sum(_rate(note.counts.tokens, note.counts.io_seconds) for note in notes),
        requests_per_second=sum(_rate(note.counts.requests, note.seconds) for note in notes),
        hit_ratio=counts.hits / lookups if lookups else 0.0,
        latency_seconds=quantiles(histograms),
        p95_max_seconds=_largest(note.histograms for note in notes),
        memory_ranks=[rank for rank, note in parts if not used_storage(note)],
        complete=len(parts) == ranks and all(note.complete for note in notes),
    )


def _sums(notes: Sequence[KvNote]) -> tuple[dict[str, TierCounts], KvCounts]:
    tiers: dict[str, TierCounts] = {}
    counts = KvCounts()
    for note in notes:
        counts.add(note.counts)
        for name, tier in note.tiers.items():
            tiers.setdefault(name, TierCounts()).add(tier)
    return tiers, counts


def read_bytes(note: KvNote) -> int:
    """Return the bytes that requests read from storage."""
    return note.tiers.get(STORAGE, TierCounts()).read_bytes


def written_bytes(note: KvNote) -> int:
    """Return the bytes that went into storage: new entries and those that were demoted."""
    tier = note.tiers.get(STORAGE, TierCounts())
    return tier.write_bytes + tier.demote_write_bytes


def used_storage(note: KvNote) -> bool:
    """Tell whether a rank ever had an entry in storage."""
    return written_bytes(note) > 0 or read_bytes(note) > 0


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def quantiles(histograms: dict[str, str]) -> dict[str, dict[str, float]]:
    """Return mean and quantiles of each operation, in seconds, and how many there were."""
    found = {}
    for name, text in sorted(histograms.items()):
        histogram = Histogram.decode(text)
        told = {label: histogram.quantile_ns(at) / 1e9 for label, at in QUANTILES.items()}
        found[name] = {"count": float(histogram.count), "mean": histogram.mean_ns() / 1e9, **told}
    return found


def _largest(parts: Iterable[dict[str, str]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for histograms in parts:
        for name, text in histograms.items():
            found[name] = max(found.get(name, 0.0), Histogram.decode(text).quantile_ns(0.95) / 1e9)
    return found


def figures(trials: Sequence[KvTrial], reports: Sequence[RankReport], plan: KvPlan) -> KvFigures:
    """Return the figures over all trials that were seen through, of a run without any those of what there was."""
    chosen = [trial for trial in trials if trial.complete] or list(trials)
    if not chosen:
        return KvFigures(break_even_bytes_per_second=plan.break_even_bytes_per_second)
    numbers = {trial.number for trial in chosen}
    notes = [note for report in reports for note in report.trials if note.number in numbers]
    tiers, _ = _sums(notes)
    storage = tiers.get(STORAGE, TierCounts())
    reads, need = [trial.read_bytes_per_second for trial in chosen], plan.break_even_bytes_per_second
    moves, moved = storage.reads + storage.writes + storage.demote_writes, _moved(storage)
    return KvFigures(
        trials=len(chosen),
        read_bytes_per_second=statistics.fmean(reads),
        write_bytes_per_second=statistics.fmean(trial.write_bytes_per_second for trial in chosen),
        read_variation_ratio=_variation(reads),
        write_variation_ratio=_variation([trial.write_bytes_per_second for trial in chosen]),
        tokens_per_second=statistics.fmean(trial.tokens_per_second for trial in chosen),
        storage_tokens_per_second=statistics.fmean(trial.storage_tokens_per_second for trial in chosen),
        requests_per_second=statistics.fmean(trial.requests_per_second for trial in chosen),
        hit_ratio=statistics.fmean(trial.hit_ratio for trial in chosen),
        hits_by_tier={name: tier.reads for name, tier in tiers.items()},
        deletes=storage.deletes,
        entry_bytes_mean=moved / moves if moves else 0.0,
        entry_bytes_max=storage.entry_bytes_max,
        latency_seconds=quantiles(merge_encoded(note.histograms for note in notes)),
        p95_max_seconds=_largest(note.histograms for note in notes),
        break_even_bytes_per_second=need,
        fed_accelerators=statistics.fmean(reads) / need if need else None,
        cpu_seconds_per_gib=_cpu(reports, moved),
    )


def _moved(storage: TierCounts) -> int:
    return storage.read_bytes + storage.write_bytes + storage.demote_write_bytes


def _variation(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return statistics.pstdev(values) / mean if mean > 0 else 0.0


def _cpu(reports: Sequence[RankReport], moved_bytes: int) -> float | None:
    used = sum(report.snapshot.cpu_seconds for report in reports)
    return used / (moved_bytes / GiB) if moved_bytes else None
