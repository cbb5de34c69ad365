"""A client of a KV cache as one process: what each mode does, what is counted, and what the trials add up to."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.bench.workloads.comm import SoloComm
from stoker.bench.workloads.kvcache import run_kvcache
from stoker.bench.workloads.kvcache_metrics import combine_trials, figures
from stoker.bench.workloads.kvcache_scaling import Autoscaler, Load
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.reports import RankReport, RankStart, StoreFacts
from stoker.bench.workloads.training import RankJob
from stoker.core.errors import StokerError
from stoker.core.histogram import Histogram
from stoker.core.kvcache import STORAGE, KvModel, KvNote, KvPersona, KvPlan, TierCounts
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.kv.content import HEADER_BYTES

PERSONA = KvPersona(context=(40, 400), generated=(8, 64), think_seconds=(0.005, 0.02))
PLAN = KvPlan(
    model=KvModel(layers=2, hidden=32, heads=4, kv_heads=2),
    personas={"short": PERSONA},
    users=4,
    duration_seconds=20.0,
    requests_max=60,
    piece_bytes=16 << 10,
)


def served(folder: Path, *, url: str = "", stopped: Any = lambda: False, **changes: Any) -> RankReport:
    plan = msgspec.structs.replace(PLAN, **changes)
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    training = TrainingPlan("test", DatasetSpec("none", 0), 1, 0, Spread(), kvcache=plan)
    target = url or f"file://{folder}/cache?fsync=none"
    report, rows = run_kvcache(RankJob(training, SoloComm(), target, folder, stopped))
    assert len(rows) == 0
    return report


def test_a_trial_ends_with_its_requests_and_its_log_tells_the_same(tmp_path: Path) -> None:
    report = served(tmp_path, trials=2)
    assert [note.number for note in report.trials] == [1, 2] and report.finished
    for note in report.trials:
        counts, storage = note.counts, note.tiers[STORAGE]
        assert (counts.requests, counts.arrivals, counts.cut, note.complete) == (60, 60, 0, True)
        assert counts.hits == storage.reads > 60
        assert counts.misses == counts.turn_misses  # a turn that was served before the one before it
        assert storage.writes == counts.prefill_writes == storage.entries
        assert counts.stamped_bytes == storage.read_bytes == note.ledger.requested_bytes
        assert note.ledger.written_bytes == storage.write_bytes
        assert storage.write_bytes == counts.prefill_tokens * 128 + storage.writes * HEADER_BYTES
        assert Histogram.decode(note.histograms["request"]).count == 60
        assert note.points[-1].requests == 60
    found = read_rank_log(tmp_path / "ranks/rank-0000.jsonl")
    assert found is not None
    assert msgspec.json.encode(found[0].trials) == msgspec.json.encode(report.trials)
    assert not (tmp_path / "cache/rank_0").exists()


def test_the_same_seed_asks_for_the_same_however_many_workers_there_are(tmp_path: Path) -> None:
    totals = []
    for name in ("a", "b"):
        (note,) = served(tmp_path / name, users=3, requests_max=45, piece_bytes=(4 << 10) << (name == "b")).trials
        counts = note.counts
        totals.append(
            (counts.tokens, counts.context_tokens, counts.prefill_writes, counts.turn_hits + counts.turn_misses)
        )
    assert totals[0] == totals[1]


def test_modes_write_only_or_read_only(tmp_path: Path) -> None:
    (wrote,) = served(tmp_path / "w", mode="prefill").trials
    assert wrote.tiers[STORAGE].reads == 0 < wrote.tiers[STORAGE].writes
    (read,) = served(tmp_path / "r", mode="decode", requests_max=20).trials
    assert read.tiers[STORAGE].writes == 0 < read.tiers[STORAGE].reads == read.counts.decode_reads
    assert read.tiers[STORAGE].entries == 40  # ten a user, written before the clock began


def test_features_have_their_effect(tmp_path: Path) -> None:
    (plain,) = served(tmp_path / "p", multi_turn=False, prefix_caching=False).trials
    counts = plain.counts
    assert (counts.turn_hits, counts.prefix_hits, counts.prefix_misses, counts.rag_reads) == (0, 0, 0, 0)
    (rich,) = served(tmp_path / "r", rag_documents=2, requests_max=150, users=8).trials
    counts = rich.counts
    assert counts.turn_hits > 0 and counts.prefix_hits > 0 and counts.rag_reads > 0
    assert 1 <= counts.prefix_misses <= 8  # who comes first writes it
    (slow,) = served(tmp_path / "s", token_seconds=0.001, requests_max=8).trials
    assert Histogram.decode(slow.histograms["generation"]).quantile_ns(0.0) >= 2e6


def test_a_small_cache_deletes_and_misses(tmp_path: Path) -> None:
    (note,) = served(tmp_path, storage_bytes=300 << 10, requests_max=120).trials
    storage = note.tiers[STORAGE]
    assert storage.deletes > 0 and storage.bytes_max <= 300 << 10 and note.counts.turn_misses > 0
    assert storage.writes - storage.deletes == storage.entries


def test_what_is_preconditioned_is_not_counted(tmp_path: Path) -> None:
    (note,) = served(tmp_path, storage_bytes=2 << 20, precondition_bytes=4 << 20, requests_max=30).trials
    assert note.tiers[STORAGE].writes == note.counts.prefill_writes
    assert note.tiers[STORAGE].deletes > 0  # the cache was full from the beginning


def test_time_ends_a_trial_and_a_wish_to_stop_the_run(tmp_path: Path) -> None:
    (note,) = served(tmp_path / "t", requests_max=0, duration_seconds=0.4).trials
    assert note.complete and 0.4 <= note.seconds < 5 and note.counts.requests > 0
    (cut,) = served(tmp_path / "s", requests_max=0, trials=3, stopped=(tmp_path / "s/cache/rank_0").exists).trials or [
        KvNote(0)
    ]
    assert not cut.complete


def test_an_error_of_the_store_ends_the_run_with_its_sentence(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/cache?fsync=none&fail_ratio=0.2&fault_seed=3"
    with pytest.raises(StokerError, match="injected failure"):
        served(tmp_path, url=url)
    found = read_rank_log(tmp_path / "ranks/rank-0000.jsonl")
    assert found is not None and "injected failure" in found[0].error and not found[0].finished


def load(seconds: float, users: int, busy: int, waiting: int, tokens: int) -> Load:
    return Load(seconds, users, users, busy, waiting, tokens)


def test_the_autoscaler_keeps_a_load() -> None:
    scaler = Autoscaler(msgspec.structs.replace(PLAN, autoscaler="qos", duration_seconds=60.0))
    assert scaler.users(load(1.0, 10, 2, 0, 0)) == 10  # too early
    assert scaler.users(load(6.0, 10, 2, 0, 100)) == 12
    assert scaler.users(load(11.5, 12, 10, 0, 200)) == 12
    assert scaler.users(load(17.0, 12, 12, 5, 300)) == 11
    assert scaler.users(load(23.0, 11, 11, 5, 400)) == 11  # it cools down
    assert [step["to_users"] for step in scaler.steps] == [12, 12, 11]


def test_the_autoscaler_finds_the_most_tokens() -> None:
    scaler = Autoscaler(msgspec.structs.replace(PLAN, autoscaler="capacity", duration_seconds=60.0))
    assert scaler.users(load(5.0, 4, 4, 0, 100)) == 8
    assert scaler.users(load(10.0, 8, 8, 0, 300)) == 16
    assert scaler.users(load(15.0, 16, 16, 0, 350)) == 8  # fewer tokens than with 8
    assert scaler.users(load(20.0, 8, 8, 0, 400)) == 8


def test_an_autoscaled_trial_gets_users_and_workers(tmp_path: Path) -> None:
    slow = KvPersona(context=(40, 40), generated=(8, 8), think_seconds=(0.05, 0.05))
    (note,) = served(
        tmp_path, autoscaler="qos", users=2, requests_max=0, duration_seconds=1.2, personas={"slow": slow}
    ).trials
    assert note.scaling and note.users > 2 and note.points[-1].users == note.users


def note(rank_bytes: int, seconds: float, latency_ns: int, *, number: int = 1) -> KvNote:
    reads = Histogram()
    reads.record_many([latency_ns] * 10)
    made = KvNote(number, seconds=seconds, complete=True, histograms={"storage_read_device": reads.encode()})
    made.tiers = {STORAGE: TierCounts(reads=10, read_bytes=rank_bytes, entry_bytes_max=rank_bytes // 10)}
    made.counts.hits, made.counts.misses, made.counts.tokens, made.counts.io_seconds = 8, 2, 100, 4.0
    return made


def report_of(rank: int, notes: list[KvNote]) -> RankReport:
    return RankReport(RankStart(rank, "a", 1, rank, 1.0, StoreFacts()), trials=notes)


def test_trials_are_sums_over_clients_and_latencies_are_pooled() -> None:
    reports = [
        report_of(0, [note(1000, 10.0, 1_000_000), note(3000, 10.0, 1_000_000, number=2)]),
        report_of(1, [note(1000, 5.0, 9_000_000), note(1000, 10.0, 9_000_000, number=2)]),
    ]
    trials = combine_trials(reports, ranks=2)
    assert [trial.read_bytes_per_second for trial in trials] == [300.0, 400.0]
    assert trials[0].storage_tokens_per_second == 50.0 and trials[0].hit_ratio == 0.8
    assert trials[0].latency_seconds["storage_read_device"]["p50"] == pytest.approx(0.001, rel=0.01)
    assert trials[0].p95_max_seconds["storage_read_device"] == pytest.approx(0.009, rel=0.01)
    plan = msgspec.structs.replace(PLAN, prefill_tokens_per_second=1.0)
    found = figures(trials, reports, plan)
    assert (found.trials, found.read_bytes_per_second, found.entry_bytes_max) == (2, 350.0, 300)
    assert found.fed_accelerators == pytest.approx(350.0 / 128)
    assert found.read_variation_ratio == pytest.approx(50 / 350)


def test_a_trial_that_a_client_left_counts_only_where_no_other_does() -> None:
    reports = [report_of(0, [note(1000, 10.0, 1), note(9000, 10.0, 1, number=2)]), report_of(1, [note(1000, 10.0, 1)])]
    trials = combine_trials(reports, ranks=2)
    assert [trial.complete for trial in trials] == [True, False]
    assert figures(trials, reports, PLAN).read_bytes_per_second == 200.0
    assert figures([], [], PLAN).trials == 0
