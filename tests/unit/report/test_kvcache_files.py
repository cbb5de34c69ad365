"""The summary of a KV-cache result, worked out from a tree of ranks' files made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from stoker.bench.report.kvcache_files import SummaryOf, rank_document, write_summary
from stoker.bench.rules.mlperf.outputs import KvSummary
from stoker.core.errors import CorruptError
from stoker.core.histogram import Histogram
from stoker.core.kvcache import STORAGE, KvCounts, KvModel, KvNote, KvPersona, KvPlan, TierCounts
from stoker.core.units import GiB

PLAN = KvPlan(KvModel(12, 1024, 8, 4), {"one": KvPersona((1, 2), (1, 2), (0.1, 0.2))})
STAMP = "20260302_090000"
OF = SummaryOf(stamp=STAMP, options=(1,), trials=2, ranks=2, hosts=1)


def rank_file(leaf: Path, trial: int, rank: int, stats: dict[str, Any], tokens: float = 0.0) -> Path:
    path = leaf / f"option_1/trial_{trial}/rank_{rank}/kvcache_results_{STAMP}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"summary": {"storage_throughput_tokens_per_sec": tokens, "cache_stats": stats}}))
    return path


def used(read: float, p95: float) -> dict[str, Any]:
    return {
        "storage_entries": 3,
        "tier_storage_read_bandwidth_gbps": read,
        "tier_storage_write_bandwidth_gbps": read / 2,
        "storage_read_device_p95_ms": p95,
        "storage_write_device_p95_ms": p95 * 2,
    }


def test_rates_are_summed_over_ranks_and_averaged_over_trials_and_p95_is_the_worst(tmp_path: Path) -> None:
    for trial, rank, read, p95 in ((1, 0, 1.0, 10.0), (1, 1, 2.0, 30.0), (2, 0, 3.0, 20.0), (2, 1, 4.0, 25.0)):
        rank_file(tmp_path, trial, rank, used(read, p95), tokens=100.0 * read)
    document = write_summary(tmp_path, OF, {})
    option = document["options"]["1"]
    assert option["aggregated_read_bandwidth_gbps"] == 5.0
    assert option["aggregated_write_bandwidth_gbps"] == 2.5
    assert option["aggregated_storage_throughput_tokens_per_sec"] == 500.0
    assert (option["aggregated_device_read_p95_ms"], option["aggregated_device_write_p95_ms"]) == (30.0, 60.0)
    assert (option["rank_count"], option["trial_count"], option["cpu_tier_ranks"]) == (2, 2, [])
    assert not document["partial_failure"]
    assert set(KvSummary.__struct_fields__) <= set(document)
    assert json.loads((tmp_path / "summary.json").read_text()) == document


def test_a_rank_without_storage_counts_as_nothing_and_is_named(tmp_path: Path) -> None:
    for trial in (1, 2):
        rank_file(tmp_path, trial, 0, used(2.0, 5.0))
        rank_file(tmp_path, trial, 1, {"storage_entries": 0})
    option = write_summary(tmp_path, OF, {})["options"]["1"]
    assert option["aggregated_read_bandwidth_gbps"] == 2.0
    assert option["cpu_tier_ranks"] == [1]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    rank_file(tmp_path, 1, 0, used(2.0, 5.0))
    document = write_summary(tmp_path, OF, {"option_1/trial_1": "rank 1 died"})
    option = document["options"]["1"]
    assert option["missing_files"] == [
        f"option_1/{each}" for each in ("trial_1/rank_1", "trial_2/rank_0", "trial_2/rank_1")
    ]
    assert option["partial_failure"] and document["partial_failure"]
    assert document["trial_failures"] == {"option_1/trial_1": "rank 1 died"}
    assert (option["trial_count"], option["rank_count"]) == (1, 1)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    rank_file(tmp_path, 1, 0, used(2.0, 5.0)).write_text("[")
    with pytest.raises(CorruptError, match="not the output of a rank"):
        write_summary(tmp_path, OF, {})


def test_a_ranks_document_has_the_published_keys_and_units() -> None:
    reads = Histogram()
    reads.record_many([10_000_000] * 95 + [200_000_000] * 5)
    storage = TierCounts(reads=100, read_bytes=4 * GiB, writes=10, write_bytes=GiB, demote_write_bytes=GiB, entries=7)
    counts = KvCounts(requests=20, tokens=1000, io_seconds=5.0, hits=90, misses=10, turn_hits=3, turn_misses=1)
    note = KvNote(1, seconds=10.0, tiers={STORAGE: storage}, counts=counts, complete=True)
    note.histograms = {"storage_read_device": reads.encode(), "request": reads.encode()}
    note.samples = {"request": [1.5]}
    document = rank_document(note, PLAN, rank=1, host="a")
    summary, stats = document["summary"], document["summary"]["cache_stats"]
    assert document["end_to_end_latencies_ms"] == [1.5] and document["stoker"]["seed"] == 43
    assert summary["avg_throughput_tokens_per_sec"] == 100.0
    assert summary["storage_throughput_tokens_per_sec"] == 200.0
    assert set(summary["end_to_end_latency_ms"]) == {"mean", "p50", "p95", "p99", "p999", "p9999"}
    assert (stats["tier_storage_read_bandwidth_gbps"], stats["tier_storage_write_bandwidth_gbps"]) == (0.4, 0.2)
    assert (stats["storage_entries"], stats["cpu_entries"], stats["gpu_entries"]) == (7, 0, 0)
    assert stats["storage_read_device_p95_ms"] == pytest.approx(10.0, rel=0.01)
    assert stats["storage_read_device_p99_ms"] == pytest.approx(200.0, rel=0.01)
    assert (stats["cache_hit_rate"], stats["read_write_ratio"]) == (0.9, 2.0)
    assert summary["multi_turn_stats"]["hit_rate"] == 0.75
    assert stats["storage_health"]["overall_status"] == "PASS"
