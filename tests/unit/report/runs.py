"""A realistic saved run: four ranks, two epochs and an evaluation, a slow stretch in the middle, histograms."""

from pathlib import Path
from typing import Any

import numpy as np

from stoker.core.histogram import Histogram, merge_encoded
from stoker.core.ledger import Counters, Ledger, sum_counters, total
from stoker.core.options import Setting
from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.core.result import (
    SERIES_FILE,
    STEP_COLUMNS,
    Epoch,
    Evidence,
    Metrics,
    RankResult,
    Result,
    save_result,
)

RANKS = 4
STEPS = 220
COMPUTE_NS = 100_000_000
SAMPLE_BYTES = 20_000_000
BATCH = 4
STAGE_SHARES = {"open": 0.14, "read": 0.71, "decode": 0.05, "batch": 0.02, "queue": 0.08}
STAGE_SCALE_NS = {"open": 9e5, "read": 2.4e7, "verify": 1.1e6, "decode": 6e5, "batch": 2e5, "queue": 5e6}


def rank_columns(rank: int, steps: int = STEPS, seed: int = 7) -> dict[str, np.ndarray]:
    """Per-step columns of one rank, int64, shape (steps,); each host's clock has an origin of its own."""
    chance = np.random.default_rng([seed, rank])
    wait = chance.gamma(2.0, 7e5, steps)
    slow = slice(int(steps * 0.45), int(steps * 0.55))
    wait[slow] += chance.gamma(3.0, 1.2e7, steps)[slow]
    wait[0] = 3.2e8
    compute = COMPUTE_NS + chance.gamma(2.0, 4e4, steps)
    barrier = chance.gamma(2.0, 2e5, steps)
    spans = wait + compute + barrier
    epoch = np.where(np.arange(steps) < steps * 0.5, 1, 2)
    phase = np.zeros(steps)
    phase[int(steps * 0.95) :] = 1
    gap = np.concatenate(([0.0], np.cumsum(np.diff(epoch) * 2.5e9 + np.diff(phase) * 8e8)))
    begin = rank * 10**13 + 10**12 + np.concatenate(([0.0], np.cumsum(spans)[:-1])) + gap
    columns = {
        "epoch": epoch,
        "phase": phase,
        "block": np.ones(steps),
        "step": np.arange(steps),
        "request_ns": begin,
        "ready_ns": begin + wait,
        "compute_start_ns": begin + wait,
        "compute_end_ns": begin + wait + compute,
        "end_ns": begin + spans,
        "samples": np.full(steps, BATCH),
        "delivered_bytes": np.full(steps, BATCH * SAMPLE_BYTES),
        "requested_bytes": np.full(steps, BATCH * SAMPLE_BYTES + 4096),
    }
    return {name: columns[name].astype(np.int64) for name in STEP_COLUMNS}


def save_series(path: Path, ranks: dict[int, dict[str, np.ndarray]]) -> None:
    arrays = {f"rank{rank:04d}/{name}": values for rank, columns in ranks.items() for name, values in columns.items()}
    np.savez(path, allow_pickle=False, **arrays)


def histograms(seed: int, samples: int = 2000) -> dict[str, str]:
    chance = np.random.default_rng(seed)
    encoded = {}
    for name, scale in {**STAGE_SCALE_NS, "step": 1.05e8, "stall": 1.6e6}.items():
        histogram = Histogram()
        width = 0.05 if name == "step" else 0.6
        histogram.record_many(int(v) for v in chance.lognormal(np.log(scale), width, samples))
        histogram.record(int(scale * 30))
        encoded[name] = histogram.encode()
    return encoded


def rank_result(rank: int, with_histograms: bool = True) -> RankResult:
    payload = STEPS * BATCH * SAMPLE_BYTES
    requested = STEPS * (BATCH * SAMPLE_BYTES + 4096)
    stall = 2.4 + 0.7 * rank
    return RankResult(
        rank=rank,
        host=f"node-{rank // 2:02d}",
        pid=4000 + rank,
        epochs=[Epoch(epoch=n, steps=104, au_ratio=0.957 - 0.004 * rank + 0.002 * n) for n in (1, 2)],
        ledger=Ledger(
            wanted_bytes=payload,
            requested_bytes=requested,
            from_store_bytes=requested - 3_000_000,
            from_cache_bytes=3_000_000,
            delivered_bytes=payload,
            files_opened=STEPS * BATCH,
            samples_delivered=STEPS * BATCH,
        ),
        counters=Counters(process_read_bytes=requested - 2_400_000, process_syscall_bytes=requested + 70_000),
        histograms=histograms(rank) if with_histograms else {},
        stall_seconds={stage: stall * part for stage, part in STAGE_SHARES.items()},
        busy_seconds={"open": 1.2, "read": 31.0, "decode": 6.3, "batch": 0.4, "queue": 2.0},
        cpu_seconds=11.8 + rank,
        compute_seconds=STEPS * COMPUTE_NS / 1e9,
        wall_seconds=25.6,
        peak_memory_bytes=1_340_000_000 + rank * 20_000_000,
    )


def plan(**changes: Any) -> TrainingPlan:
    facts: dict[str, Any] = {
        "model": "unet3d",
        "dataset": DatasetSpec(format="npz", files=3500, record_length_bytes=SAMPLE_BYTES),
        "ranks": RANKS,
        "batch_size": BATCH,
        "computation": Spread(parameters={"value": COMPUTE_NS / 1e9}),
        "target_url": "file:///mnt/train/unet3d",
        "accelerator": "h100",
        "epochs": 2,
        "duration_seconds": 60.0,
        "read_threads": 8,
        "decode_threads": 2,
        "seed": 20260131,
        "notes": ("h100 is a what-if accelerator in the current edition and cannot be used for a submission.",),
    }
    return TrainingPlan(**{**facts, **changes})


def realistic_result(with_histograms: bool = True) -> Result:
    """A run that deserves a yes."""
    ranks = [rank_result(rank, with_histograms) for rank in range(RANKS)]
    counters = sum_counters(rank.counters for rank in ranks)
    counters.device_read_bytes = int(total(rank.ledger for rank in ranks).from_store_bytes * 1.02)
    stall = {name: sum(rank.stall_seconds[name] for rank in ranks) for name in STAGE_SHARES}
    epochs = [
        Epoch(
            epoch=number,
            steps=104,
            samples=104 * BATCH * RANKS,
            dropped_samples=12,
            wall_seconds=11.4 + number / 10,
            au_ratio=0.951 + number / 1000,
            au_compatible_ratio=0.948 + number / 1000,
            samples_per_second=146.1 + number,
            samples_per_second_compatible=143.9 + number,
            delivered_bytes_per_second=2.92e9,
            cached_before_ratio=0.0004,
            order_digest="9f3c",
            coverage_exact=True,
        )
        for number in (1, 2)
    ]
    evaluation = Epoch(epoch=2, phase="evaluation", steps=11, samples=176, wall_seconds=1.3, au_ratio=0.961)
    return Result(
        id="20260131-120000-feed-unet3d",
        job=Job(
            verb="feed",
            arguments=("feed", "/mnt/train", "--model", "unet3d", "--accelerator", "h100:4", "--budget", "60s"),
            settings={
                "model": Setting("unet3d", "flag"),
                "accelerator": Setting("h100:4", "flag"),
                "budget": Setting(60.0, "flag"),
                "read_threads": Setting(8, "env"),
                "decode_threads": Setting(2, "file"),
                "order": Setting("shuffled"),
                "evict": Setting(True),
                "verify": Setting(0.0),
                "collate": Setting("views"),
                "label": Setting(None),
            },
        ),
        plan=plan(),
        stoker_version="1.0.0",
        status="complete",
        started_utc="2026-01-31T12:00:00.123456Z",
        ended_utc="2026-01-31T12:00:58.000000Z",
        wall_seconds=57.9,
        machine={
            "cpu": {"model": "AMD EPYC 9354", "usable": 32, "architecture": "x86_64"},
            "memory_bytes": 270_000_000_000,
            "kernel": "6.8.0-50-generic",
            "system": "Ubuntu 24.04.1 LTS",
            "python": "3.11.9",
            "mount": {"type": "nfs4", "options": "rw,vers=4.2,nconnect=8,rsize=1048576", "source": "filer:/train"},
            "hosts": [{"name": "node-00", "ranks": 2}, {"name": "node-01", "ranks": 2}],
        },
        epochs=[*epochs, evaluation],
        ranks=ranks,
        metrics=Metrics(
            au_ratio=0.9532,
            au_low_ratio=0.9447,
            au_sustained_ratio=0.946,
            au_high_ratio=0.9608,
            au_compatible_ratio=0.9498,
            samples_per_second=147.6,
            samples_per_second_compatible=145.2,
            delivered_bytes_per_second=2.95e9,
            store_bytes_per_second=2.94e9,
            steps=206,
            stall_seconds=stall,
            limiting_stage="read",
            limiting_share_ratio=0.71,
            client_cpu_ratio=0.23,
            first_batch_seconds=0.322,
        ),
        evidence=Evidence(
            io_mode_requested="buffered",
            io_mode="buffered",
            ledger=total(rank.ledger for rank in ranks),
            counters=counters,
            target_kind="nfs4",
            device="0:53",
        ),
        histograms=merge_encoded(rank.histograms for rank in ranks),
        notes=["3,500 files were generated for this run and removed afterwards."],
    )


def save_run(folder: Path, result: Result, *, series: bool = True) -> Path:
    save_result(folder, result)
    if series:
        save_series(folder / SERIES_FILE, {rank: rank_columns(rank) for rank in range(RANKS)})
    return folder
