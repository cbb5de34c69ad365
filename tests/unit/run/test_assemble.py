"""From reports to a result: what is summed, what is taken once a host, what is left unknown."""

import msgspec
import numpy as np
import pytest
from conducted import JOB, plan

from stoker.bench.run.assemble import RunEnd, RunStart, assemble
from stoker.bench.workloads.reports import PhaseNote, RankReport, RankStart, Snapshot, StoreFacts
from stoker.core.ledger import Counters, Ledger
from stoker.core.result import STEP_COLUMNS, Result

MS = 1_000_000
START = RunStart("id", JOB, plan(ranks=4, notes=("planned",)), "2026-01-01T00:00:00Z", "local", {"host": "a"})
DIRECT = StoreFacts("direct:///data", "direct", "direct", "xfs", "nvme0n1", ("a note",))


def report(rank: int, host: str, **changes: object) -> RankReport:
    made = RankReport(
        start=RankStart(rank, host, 100 + rank, host_rank=rank % 2, usable_cpus=4.0, store=DIRECT),
        snapshot=Snapshot(
            ledger=Ledger(requested_bytes=1000, from_store_bytes=1000),
            counters=Counters(process_read_bytes=1000, device_read_bytes=2000 if rank % 2 == 0 else None),
            stall_seconds={"read": 1.0 + rank, "open": 0.5},
            cpu_seconds=2.0,
            wall_seconds=4.0,
        ),
        phases=[PhaseNote(1, 0, 32, 5, 0, 500, digest=f"{1 << rank:x}", complete=True)],
        finished=True,
    )
    made.phases[0].expected_digest = f"{15:016x}" if rank == 0 else ""
    return msgspec.structs.replace(made, **changes)


def rows(steps: int = 4) -> np.ndarray:
    begin = np.arange(steps, dtype=np.int64) * 20 * MS
    values = {
        "epoch": 1,
        "request_ns": begin,
        "ready_ns": begin + 5 * MS,
        "compute_start_ns": begin + 5 * MS,
        "compute_end_ns": begin + 20 * MS,
        "end_ns": begin + 20 * MS,
        "samples": 2,
        "delivered_bytes": 200,
    }
    return np.stack([np.broadcast_to(np.int64(values.get(name, 0)), (steps,)) for name in STEP_COLUMNS], axis=1)


def made(reports: list[RankReport], *, steps: tuple[int, ...] = (4, 4, 4, 4)) -> Result:
    parts = [(one, rows(count)) for one, count in zip(reports, steps, strict=True)]
    return assemble(START, RunEnd("complete", notes=("ended",)), parts)


def four(**changes: object) -> list[RankReport]:
    return [report(rank, "a" if rank < 2 else "b", **changes) for rank in range(4)]


def test_ledgers_and_process_counters_are_summed_over_ranks_and_devices_over_hosts() -> None:
    evidence = made(four()).evidence
    assert evidence.ledger.requested_bytes == 4000
    assert evidence.counters.process_read_bytes == 4000
    assert evidence.counters.device_read_bytes == 4000
    assert evidence.counters.http_body_bytes is None
    assert (evidence.counters.resident_before_bytes, evidence.counters.resident_probe_bytes) == (0, 2000)
    assert (evidence.io_mode, evidence.target_kind, evidence.device) == ("direct", "xfs", "nvme0n1")
    assert evidence.notes == ["a note"]


def test_a_counter_that_one_rank_lacks_is_unknown() -> None:
    reports = four()
    reports[3].snapshot.counters = None
    assert made(reports).evidence.counters.process_read_bytes is None


def test_the_client_s_share_is_that_of_the_busiest_host() -> None:
    reports = four()
    reports[2].snapshot.cpu_seconds = 10.0
    assert made(reports).metrics.client_cpu_ratio == pytest.approx(12.0 / (4.0 * 4.0))


def test_stalls_are_summed_and_the_worst_stage_named() -> None:
    metrics = made(four()).metrics
    assert metrics.stall_seconds == {"read": 10.0, "open": 2.0}
    assert (metrics.limiting_stage, metrics.limiting_share_ratio) == ("read", 10 / 12)
    assert metrics.store_bytes_per_second == 1000.0
    assert metrics.au_ratio == pytest.approx(0.75)


def test_coverage_is_proven_by_the_digests_of_all_ranks() -> None:
    epoch = made(four()).epochs[0]
    assert (epoch.order_digest, epoch.coverage_exact, epoch.dropped_samples) == ("000000000000000f", True, 5)


def test_a_sample_left_out_or_taken_twice_is_seen() -> None:
    reports = four()
    reports[1].phases[0].digest = "1"
    assert made(reports).epochs[0].coverage_exact is False
    assert made(four(), steps=(4, 4, 4, 3)).epochs[0].coverage_exact is False


def test_an_epoch_that_one_rank_did_not_finish_is_not_judged() -> None:
    reports = four()
    reports[1].phases[0].complete = False
    epoch = made(reports).epochs[0]
    assert (epoch.complete, epoch.coverage_exact) == (False, None)


def test_unknown_residency_stays_unknown() -> None:
    reports = four()
    reports[1].phases[0].resident_bytes = None
    result = made(reports)
    assert result.epochs[0].cached_before_ratio is None
    assert result.evidence.counters.resident_before_bytes is None


def test_a_rank_that_fell_back_to_buffered_reading_shows() -> None:
    reports = four()
    fallen = msgspec.structs.replace(DIRECT, io_mode="buffered", notes=("fell back",))
    reports[2].start = msgspec.structs.replace(reports[2].start, store=fallen)
    evidence = made(reports).evidence
    assert (evidence.io_mode_requested, evidence.io_mode) == ("direct", "buffered")
    assert "the ranks read in different modes: direct, buffered" in evidence.notes


def test_a_run_of_which_nothing_is_left_has_an_empty_result() -> None:
    result = assemble(START, RunEnd("partial", "killed"), [])
    assert (result.ranks, result.epochs, result.metrics.steps) == ([], [], 0)
    assert result.notes == ["launcher: local", "planned"]
    assert (result.metrics.au_low_ratio, result.metrics.au_high_ratio) == (0.0, 1.0)
