"""A result that every rule accepts, and ways to spoil it."""

from typing import Any

import msgspec

from stoker.core.ledger import Counters, Ledger
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.core.result import Epoch, Evidence, Metrics, RankResult, Result

REQUESTED_BYTES = 10_000_000_000


def good_result(**changes: Any) -> Result:
    """A complete run on an NVMe file system that deserves a yes. `changes` go to the part that has the field:
    `evidence__io_mode="buffered"`, `ledger__errors=3`, `status="failed"`."""
    ledger = Ledger(
        wanted_bytes=REQUESTED_BYTES - 10_000,
        requested_bytes=REQUESTED_BYTES,
        from_store_bytes=REQUESTED_BYTES,
        delivered_bytes=REQUESTED_BYTES - 10_000,
        files_opened=100,
        samples_delivered=100,
    )
    counters = Counters(process_read_bytes=REQUESTED_BYTES, device_read_bytes=REQUESTED_BYTES)
    epochs = [
        Epoch(epoch=number, steps=100, samples=100, au_ratio=0.96, cached_before_ratio=0.0, coverage_exact=True)
        for number in (1, 2)
    ]
    result = Result(
        id="run-1",
        job=Job(verb="run training"),
        plan=TrainingPlan(
            model="unet3d",
            dataset=DatasetSpec(format="npz", files=100),
            ranks=2,
            batch_size=1,
            computation=Spread(),
            accelerator="h100",
        ),
        status="complete",
        epochs=epochs,
        ranks=[RankResult(rank=0, host="a"), RankResult(rank=1, host="a")],
        metrics=Metrics(
            au_ratio=0.96,
            au_low_ratio=0.95,
            au_high_ratio=0.97,
            au_sustained_ratio=0.955,
            steps=200,
            client_cpu_ratio=0.2,
        ),
        evidence=Evidence(
            io_mode_requested="direct", io_mode="direct", ledger=ledger, counters=counters, target_kind="xfs"
        ),
    )
    return spoil(result, **changes)


def spoil(result: Result, **changes: Any) -> Result:
    """Return the result with the fields changed; `plan` is frozen and replaced as a whole."""
    parts = {
        "metrics": result.metrics,
        "evidence": result.evidence,
        "ledger": result.evidence.ledger,
        "counters": result.evidence.counters,
        "epoch2": result.epochs[1],
        "rank1": result.ranks[1],
    }
    for path, value in changes.items():
        part, _, name = path.rpartition("__")
        if part == "plan":
            result.plan = msgspec.structs.replace(result.plan, **{name: value})
        else:
            setattr(parts[part] if part else result, name, value)
    return result


SLOW = {"metrics__au_ratio": 0.6, "metrics__au_low_ratio": 0.58, "metrics__au_high_ratio": 0.62}
UNSURE = {"metrics__au_ratio": 0.89, "metrics__au_low_ratio": 0.85, "metrics__au_high_ratio": 0.93}
# What breaks each rule of the catalogue: changes to the good result.
BREACHES: dict[str, dict[str, Any]] = {
    "run.complete": {"status": "partial", "reason": "SIGINT"},
    "run.failed": {"status": "failed", "reason": "a rank died"},
    "rank.errors": {"rank1__error": "read of 'x': got 3 bytes"},
    "rank.missing": {"plan__ranks": 3},
    "run.figures": {"metrics__au_high_ratio": 0.5, "metrics__au_low_ratio": 0.9},
    "coverage.exact": {"epoch2__coverage_exact": False},
    "run.steps": {"metrics__steps": 0},
    "evidence.target": {"evidence__io_mode": "null", "evidence__target_kind": "null"},
    "evidence.wanted": {"ledger__delivered_bytes": REQUESTED_BYTES // 2},
    "evidence.excess": {"counters__process_read_bytes": REQUESTED_BYTES * 2},
    "client.limit": {**SLOW, "metrics__client_cpu_ratio": 0.97},
    "au.threshold": SLOW,
    "au.sustained": {"metrics__au_sustained_ratio": 0.7},
    "evidence.ledger": {"ledger__requested_bytes": REQUESTED_BYTES * 2},
    "evidence.payload": {
        "ledger__requested_bytes": REQUESTED_BYTES - 20_000,
        "ledger__from_store_bytes": REQUESTED_BYTES - 20_000,
    },
    "evidence.cache": {
        "ledger__from_cache_bytes": REQUESTED_BYTES // 4,
        "ledger__from_store_bytes": REQUESTED_BYTES * 3 // 4,
        "counters__process_read_bytes": REQUESTED_BYTES * 3 // 4,
    },
    "evidence.counters": {"counters__process_read_bytes": REQUESTED_BYTES // 2},
    "evidence.epochs": {"evidence__io_mode": "buffered", "epoch2__cached_before_ratio": 0.4},
    "au.interval": UNSURE,
    "evidence.io_mode": {"evidence__io_mode": "buffered"},
    "run.errors": {"ledger__errors": 1},
    "run.retries": {"ledger__retries": 7},
    "evidence.device": {"counters__device_read_bytes": REQUESTED_BYTES // 10},
    "client.busy": {"metrics__client_cpu_ratio": 0.95},
    "coverage.dropped": {"epoch2__dropped_samples": 4},
    "run.clock": {"clock_step_seconds": -3.5},
    "scope.changed": {"plan__deviations": ("The batch size is 4; the model's is 7.",)},
    "scope.quick": {"job": Job(verb="feed")},
}
