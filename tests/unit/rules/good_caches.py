"""A sound run of a KV cache, and what breaks each rule about it."""

from collections.abc import Callable
from typing import Any

import msgspec

from stoker.core.kvcache import CPU, STORAGE, KvCounts, KvFigures, KvModel, KvPersona, KvPlan, KvTrial, TierCounts
from stoker.core.ledger import Counters, Ledger
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.core.result import Evidence, Metrics, RankResult, Result

SIZE = 1 << 30
PLAN = KvPlan(
    KvModel(32, 4096, 32, 8),
    {"one": KvPersona((512, 4096), (50, 200), (0.1, 0.5))},
    trials=2,
    prefill_tokens_per_second=4096.0,
)
QUICK = {"count": 9.0, "mean": 0.01, "p50": 0.01, "p95": 0.02, "p99": 0.02, "p99.9": 0.02, "p99.99": 0.02, "max": 0.02}


def trial(number: int) -> KvTrial:
    """A trial of ten seconds: a GiB read from storage and as much written."""
    storage = TierCounts(reads=60, read_bytes=SIZE, writes=60, write_bytes=SIZE, deletes=2, entries=8, bytes_max=SIZE)
    counts = KvCounts(requests=5, tokens=500, hits=10, storage_io_seconds=20.0, content_seconds=1.0)
    return KvTrial(number, ranks=2, seconds=10.0, tiers={STORAGE: storage}, counts=counts, complete=True)


def good_cache() -> Result:
    """Return two trials on a file system, by two clients."""
    figures = KvFigures(
        trials=2,
        read_bytes_per_second=2.0 * SIZE,
        write_bytes_per_second=1.0 * SIZE,
        tokens_per_second=100.0,
        hit_ratio=0.9,
        hits_by_tier={STORAGE: 20},
        deletes=4,
        entry_bytes_mean=SIZE / 10,
        entry_bytes_max=SIZE // 5,
        latency_seconds={"storage_read_device": QUICK, "storage_write_device": QUICK, "storage_read": QUICK},
        break_even_bytes_per_second=SIZE / 2,
        fed_accelerators=4.0,
        cpu_seconds_per_gib=0.5,
    )
    ledger = Ledger(
        wanted_bytes=2 * SIZE,
        requested_bytes=2 * SIZE,
        from_store_bytes=2 * SIZE,
        delivered_bytes=2 * SIZE,
        written_bytes=2 * SIZE,
        files_opened=20,
        files_written=20,
    )
    return Result(
        id="run-1",
        job=Job("run kvcache"),
        plan=TrainingPlan("llama3.1-8b", DatasetSpec("none", 0), 2, 0, Spread(), kvcache=PLAN),
        status="complete",
        ranks=[RankResult(rank=0, host="a"), RankResult(rank=1, host="a")],
        metrics=Metrics(client_cpu_ratio=0.3),
        evidence=Evidence(
            io_mode_requested="buffered",
            io_mode="buffered",
            ledger=ledger,
            counters=Counters(process_read_bytes=2 * SIZE, process_write_bytes=2 * SIZE, device_write_bytes=2 * SIZE),
            target_kind="xfs",
            device="nvme0n1",
            durable=True,
        ),
        trials=[trial(1), trial(2)],
        kvcache=figures,
    )


def _plan(**changes: Any) -> Callable[[Result], None]:
    def change(result: Result) -> None:
        result.plan = msgspec.structs.replace(result.plan, kvcache=msgspec.structs.replace(PLAN, **changes))

    return change


def _figures(**changes: Any) -> Callable[[Result], None]:
    def change(result: Result) -> None:
        assert result.kvcache is not None
        result.kvcache = msgspec.structs.replace(result.kvcache, **changes)

    return change


def _no_store(result: Result) -> None:
    result.evidence.io_mode = result.evidence.target_kind = "null"


def _unread(result: Result) -> None:
    result.trials[1].tiers[STORAGE].reads = 0


def _few(result: Result) -> None:
    for each in result.trials:
        each.tiers[STORAGE].reads = 49


def _from_memory(ratio: int) -> Callable[[Result], None]:
    def change(result: Result) -> None:
        for each in result.trials:
            each.tiers[CPU] = TierCounts(reads=1, read_bytes=SIZE * ratio // 100)

    return change


def _cut(result: Result) -> None:
    result.trials[0].complete = False


def _busy(result: Result) -> None:
    result.metrics.client_cpu_ratio = 0.95


def _not_written(result: Result) -> None:
    result.evidence.counters.device_write_bytes = SIZE


def _never_full(result: Result) -> None:
    for each in result.trials:
        each.tiers[STORAGE].deletes = 0


CACHE_BREACHES: dict[str, Callable[[Result], None]] = {
    "kvcache.target": _no_store,
    "kvcache.done": _cut,
    "kvcache.storage": _unread,
    "kvcache.client": _busy,
    "kvcache.break_even": _plan(prefill_required=True),
    "kvcache.memory": _from_memory(150),
    "kvcache.durable": _plan(fsync="none"),
    "kvcache.written": _not_written,
    "kvcache.tiers": _from_memory(20),
    "kvcache.few": _few,
    "kvcache.variation": _figures(read_variation_ratio=0.5),
    "kvcache.full": _never_full,
    "kvcache.goals": _figures(latency_seconds={"storage_read_device": {**QUICK, "p95": 0.3}}),
}
