"""The figures of a result, from its leaves: what a rollup publishes, and what the judge holds a rollup against."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final

from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import dig, number
from stoker.core.units import GiB

Means = dict[str, float | None]
CHECKPOINT_KEYS: Final = {
    "save_bandwidth": "metric.save_checkpoint_io_mean_GB_per_second",
    "load_bandwidth": "metric.load_checkpoint_io_mean_GB_per_second",
    "save_duration": "metric.save_checkpoint_duration_mean_seconds",
    "load_duration": "metric.load_checkpoint_duration_mean_seconds",
}
RECALLS: Final = ("mean", "mean_recall", "recall_at_k")
_KV_KEYS: Final = {
    "tokens": ("aggregated_storage_throughput_tokens_per_sec",),
    "read": ("aggregated_read_bandwidth_gbps",),
    "write": ("aggregated_write_bandwidth_gbps",),
    "read_p95": ("aggregated_device_read_p95_ms", "aggregated_storage_read_p95_ms", "aggregated_p95_latency_ms"),
}
_DISK_BYTES: Final = ("total_bytes_read", "total_read_bytes", "bytes_read", "read_bytes")
_DISK_RATES: Final = ("read_bytes_per_second", "read_bytes_per_sec")
_DISK_OPERATIONS: Final = ("total_iops", "iops", "read_iops")


def training_means(runs: Sequence[Leaf]) -> Means:
    """Return `io` in MiB/s and `samples` in samples/s over the measured runs; None when a run does not tell."""
    return {
        "io": _mean_of_all(number(leaf.summary, "metric.train_io_mean_MB_per_second") for leaf in runs),
        "samples": _mean_of_all(leaf.samples_per_second for leaf in runs),
    }


def checkpointing_means(runs: Sequence[Leaf]) -> Means:
    """Return bandwidths in GiB/s and durations in seconds over the leaves that tell them: one may write, one read."""
    return {name: _mean_of_some(number(leaf.summary, key) for leaf in runs) for name, key in CHECKPOINT_KEYS.items()}


def vector_means(runs: Sequence[Leaf]) -> Means:
    """Return queries/s, P99 in ms, recall as a ratio, operations/s and GiB/s of the disks, over the runs."""
    found = [vector_figures(leaf)[0] for leaf in runs]
    return {
        "queries": _mean_of_all(number(each, "throughput_qps") for each in found),
        "p99": _mean_of_all(number(each, "p99_latency_ms") for each in found),
        "recall": _mean_of_all(recall_of(each) for each in found),
        "operations": _mean_of_all(_disk(each, _DISK_OPERATIONS) for each in found),
        "read": _mean_of_all(_disk_read(each) for each in found),
    }


def kv_figures(leaf: Leaf) -> dict[str, Means]:
    """Return of each option tokens/s, read and write in GB/s (the tool says gbps), and the worst device P95 in ms."""
    options = dig(leaf.summary, ["options"])
    return {
        str(option): {name: _first(found, keys) for name, keys in _KV_KEYS.items()}
        for option, found in (sorted(options.items()) if isinstance(options, dict) else [])
    }


def vector_figures(leaf: Leaf) -> tuple[dict[str, Any] | None, str]:
    """Return the figures of a vector database's run and the file they stand in."""
    for name in ("statistics.json", "summary.json"):
        found = leaf.document(name)
        if found is not None:
            return found, leaf.folder.below(name)
    return None, leaf.path


def recall_of(figures: Any) -> float | None:
    """Return the mean recall, a ratio."""
    return _first(dig(figures, ["recall"]), RECALLS)


def _disk_read(figures: Any) -> float | None:
    told, total = _disk(figures, _DISK_RATES), _disk(figures, _DISK_BYTES)
    seconds = number(figures, "total_time_seconds")
    if told is None and total is not None and seconds is not None and seconds > 0:
        told = total / seconds
    return None if told is None else told / GiB


def _disk(figures: Any, keys: Iterable[str]) -> float | None:
    """Return what was counted of the disks; of an engine elsewhere they say nothing."""
    counted = dig(figures, ["disk_io"])
    return None if dig(counted, ["applicable"]) is False else _first(counted, keys)


def _first(document: Any, keys: Iterable[str]) -> float | None:
    return next((value for key in keys if (value := number(document, key)) is not None), None)


def _mean_of_all(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return statistics.fmean(v for v in known if v is not None) if known and None not in known else None


def _mean_of_some(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
