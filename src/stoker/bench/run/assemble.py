"""From what the ranks tell to the result of the run: sums, means and the evidence. Pure.

Both the orderly end of a run and the recovery of a killed one come through here.
"""

from collections.abc import Sequence

import msgspec

from stoker import __version__
from stoker.bench.workloads.checkpoint_metrics import combine, figures
from stoker.bench.workloads.kvcache_metrics import combine_trials
from stoker.bench.workloads.kvcache_metrics import figures as cache_figures
from stoker.bench.workloads.metrics import (
    combine_epochs,
    compute_seconds,
    exclusion_of,
    limiting_stage,
    mean_sustained_ratio,
    rank_epochs,
    run_metrics,
)
from stoker.bench.workloads.reports import PhaseNote, RankReport, StoreFacts
from stoker.bench.workloads.steps import PHASES, Rows
from stoker.bench.workloads.vector_metrics import vector_figures, without_requests
from stoker.checkpoint.layout import totals
from stoker.core.histogram import merge_encoded
from stoker.core.ledger import Counters, sum_counters, total
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import Epoch, Evidence, Metrics, RankResult, Result

Part = tuple[RankReport, Rows]


class RunStart(msgspec.Struct, frozen=True):
    """What is known before the first step; the first event of the conductor's log."""

    id: str
    job: Job
    plan: TrainingPlan
    started_utc: str
    launcher: str
    machine: dict[str, object]
    stoker_version: str = __version__


class RunEnd(msgspec.Struct, frozen=True):
    """How the run ended."""

    status: str
    reason: str = ""
    ended_utc: str = ""
    wall_seconds: float = 0.0
    clock_step_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def assemble(start: RunStart, end: RunEnd, parts: Sequence[Part]) -> Result:
    """Return the result of a run from what each rank tells, `parts` ordered by rank; some may be missing."""
    plan = start.plan
    figures_of_vectors = vector_figures([report for report, _ in parts]) if plan.vectors is not None else None
    parts = [(report, without_requests(rows)) for report, rows in parts]
    ranks = [_rank_result(part, plan) for part in parts]
    epochs = _run_epochs(ranks, [report for report, _ in parts])
    metrics = run_metrics([rows for _, rows in parts], epochs, exclusion_of(plan), seed=plan.seed)
    metrics.au_sustained_ratio = mean_sustained_ratio([rows for _, rows in parts], plan)
    evidence = _evidence(parts, ranks)
    _complete_metrics(metrics, evidence, parts)
    notes = dict.fromkeys((*plan.notes, *end.notes, *(note for report, _ in parts for note in report.notes)))
    what = plan.checkpoint
    operations = combine([report for report, _ in parts], ranks=plan.ranks) if what is not None else []
    sums = totals(what.shape, plan.ranks) if what is not None else None
    reports = [report for report, _ in parts]
    trials = combine_trials(reports, ranks=plan.ranks) if plan.kvcache is not None else []
    return Result(
        trials=trials,
        kvcache=cache_figures(trials, reports, plan.kvcache) if plan.kvcache is not None else None,
        checkpoints=operations,
        checkpointing=figures(operations, size_bytes=sums.size_bytes, files=sums.files) if sums is not None else None,
        vectors=figures_of_vectors,
        id=start.id,
        job=start.job,
        plan=plan,
        stoker_version=start.stoker_version,
        status=end.status,
        reason=end.reason,
        started_utc=start.started_utc,
        ended_utc=end.ended_utc,
        wall_seconds=end.wall_seconds,
        clock_step_seconds=end.clock_step_seconds,
        machine=start.machine,
        epochs=epochs,
        ranks=ranks,
        metrics=metrics,
        evidence=evidence,
        histograms=merge_encoded(rank.histograms for rank in ranks),
        notes=[f"launcher: {start.launcher}", *notes],
    )


def _rank_result(part: Part, plan: TrainingPlan) -> RankResult:
    report, rows = part
    snapshot = report.snapshot
    epochs = rank_epochs(rows, exclusion_of(plan))
    for epoch in epochs:
        _apply_notes(epoch, _notes_of(epoch, [report]), ranks=1)
    return RankResult(
        rank=report.start.rank,
        host=report.start.host,
        pid=report.start.pid,
        epochs=epochs,
        ledger=snapshot.ledger,
        counters=_with_residency(snapshot.counters, [report]),
        histograms=report.histograms,
        stall_seconds=snapshot.stall_seconds,
        busy_seconds=snapshot.busy_seconds,
        cpu_seconds=snapshot.cpu_seconds,
        compute_seconds=float(compute_seconds(rows).sum()),
        wall_seconds=snapshot.wall_seconds,
        peak_memory_bytes=snapshot.peak_memory_bytes,
        error=report.error,
        reading=report.reading,
        checkpoints=report.checkpoints,
        vectors=report.vectors,
        trials=report.trials,
    )


def _run_epochs(ranks: Sequence[RankResult], reports: Sequence[RankReport]) -> list[Epoch]:
    """Return the epochs and evaluations of the run, in the order they ran."""
    parts: dict[tuple[int, int], list[Epoch]] = {}
    for rank in ranks:
        for epoch in rank.epochs:
            parts.setdefault((epoch.epoch, PHASES.index(epoch.phase)), []).append(epoch)
    combined = []
    for key in sorted(parts):
        epoch = combine_epochs(parts[key])
        notes = _notes_of(epoch, reports)
        _apply_notes(epoch, notes, ranks=len(reports))
        epoch.coverage_exact = _coverage(epoch, notes)
        combined.append(epoch)
    return combined


def _notes_of(epoch: Epoch, reports: Sequence[RankReport]) -> list[PhaseNote]:
    key = (epoch.epoch, PHASES.index(epoch.phase))
    return [note for report in reports for note in report.phases if (note.epoch, note.phase) == key]


def _apply_notes(epoch: Epoch, notes: Sequence[PhaseNote], *, ranks: int) -> None:
    """Enter what the steps do not tell."""
    resident, probed = _residency(notes)
    epoch.cached_before_ratio = resident / probed if resident is not None and probed else None
    epoch.dropped_samples = max((note.dropped_samples for note in notes), default=0)
    epoch.complete = len(notes) == ranks and all(note.complete for note in notes)
    visited = 0
    for note in notes:
        visited ^= int(note.digest or "0", 16)
    epoch.order_digest = f"{visited:016x}" if all(note.digest for note in notes) else ""


def _coverage(epoch: Epoch, notes: Sequence[PhaseNote]) -> bool | None:
    """Tell whether all ranks together visited each sample they should once, None for an epoch that was cut short."""
    expected = next((note for note in notes if note.expected_digest), None)
    if not epoch.complete or expected is None:
        return None
    return epoch.order_digest == expected.expected_digest and epoch.samples == expected.expected_samples


def _residency(notes: Sequence[PhaseNote]) -> tuple[int | None, int | None]:
    resident = [note.resident_bytes for note in notes if note.resident_bytes is not None]
    probed = [note.probed_bytes for note in notes if note.probed_bytes is not None]
    if not notes or len(resident) < len(notes) or len(probed) < len(notes):
        return None, None
    return sum(resident), sum(probed)


def _with_residency(counters: Counters | None, reports: Sequence[RankReport]) -> Counters:
    resident, probed = _residency([note for report in reports for note in report.phases])
    return msgspec.structs.replace(counters or Counters(), resident_before_bytes=resident, resident_probe_bytes=probed)


def _evidence(parts: Sequence[Part], ranks: Sequence[RankResult]) -> Evidence:
    """Return the sums over ranks; what counts for a whole host is taken once a host."""
    if not parts:
        return Evidence()
    counters = sum_counters(rank.counters for rank in ranks)
    leaders = sum_counters(
        rank.counters for rank, (report, _) in zip(ranks, parts, strict=True) if report.start.host_rank == 0
    )
    counters.device_read_bytes = leaders.device_read_bytes
    counters.network_receive_bytes = leaders.network_receive_bytes
    counters.device_write_bytes = leaders.device_write_bytes
    counters.network_transmit_bytes = leaders.network_transmit_bytes
    stores = [report.start.store for report, _ in parts]
    notes = dict.fromkeys(note for store in stores for note in store.notes)
    modes = dict.fromkeys(store.io_mode for store in stores)
    if len(modes) > 1:
        notes[f"the ranks read in different modes: {', '.join(modes)}"] = None
    worst = next((store for store in stores if store.io_mode != store.io_mode_requested), stores[0])
    return Evidence(
        io_mode_requested=worst.io_mode_requested,
        io_mode=worst.io_mode,
        ledger=total(rank.ledger for rank in ranks),
        counters=counters,
        target_kind=worst.kind,
        device=worst.device,
        notes=list(notes),
        durable=_durable(stores),
    )


def _durable(stores: Sequence[StoreFacts]) -> bool | None:
    """Return whether every rank's store promises that a finished write survives power loss."""
    told = [store.durable for store in stores]
    return None if None in told else all(told)


def _complete_metrics(metrics: Metrics, evidence: Evidence, parts: Sequence[Part]) -> None:
    """Enter what the steps do not tell: where the stalls came from, the store's rate, the client's CPU."""
    stalls: dict[str, float] = {}
    for report, _ in parts:
        for stage, seconds in report.snapshot.stall_seconds.items():
            stalls[stage] = stalls.get(stage, 0.0) + seconds
    metrics.stall_seconds = stalls
    metrics.limiting_stage, metrics.limiting_share_ratio = limiting_stage(stalls)
    wall_seconds = max((report.snapshot.wall_seconds for report, _ in parts), default=0.0)
    if wall_seconds > 0:
        metrics.store_bytes_per_second = evidence.ledger.from_store_bytes / wall_seconds
        metrics.client_cpu_ratio = _client_cpu_ratio([report for report, _ in parts], wall_seconds)


def _client_cpu_ratio(reports: Sequence[RankReport], wall_seconds: float) -> float:
    """Return the CPU time over what was to be had, of the busiest host."""
    used: dict[str, float] = {}
    usable: dict[str, float] = {}
    for report in reports:
        host = report.start.host
        used[host] = used.get(host, 0.0) + report.snapshot.cpu_seconds
        usable[host] = max(usable.get(host, 0.0), report.start.usable_cpus)
    return max((used[host] / (wall_seconds * usable[host]) for host in used if usable[host] > 0), default=0.0)
