"""The files of a KV-cache result as MLPerf Storage has them: one a rank and trial, and the summary of all.

    option_<o>/trial_<t>/rank_<n>/kvcache_results_<time>.json      what a rank measured: raw latencies and a summary
    summary.json, kvcache_run_summary.json                         all ranks and trials of each option

Its "GB" are GiB. The summary is worked out from the ranks' files alone, by the rules' formulas: bandwidth and tokens
summed over ranks and averaged over trials, P95 the largest of all; the P95 of all pooled stands beside.
"""

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.kvcache_checks import GOALS, HIT_GOAL
from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic
from stoker.core.histogram import Histogram, merge_encoded
from stoker.core.kvcache import STORAGE, TIERS, KvNote, KvPlan, TierCounts
from stoker.core.result import Result
from stoker.core.units import GiB

RESULT_NAME: Final = "kvcache_results_{stamp}.json"
SUMMARY_FILES: Final = ("summary.json", "kvcache_run_summary.json")
FILE_BYTES_MAX: Final = 256 << 20
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}
_RAW: Final = {
    "request": "end_to_end_latencies_ms",
    "io": "storage_latencies_ms",
    "generation": "generation_latencies_ms",
}
_NAMED: Final = re.compile(r"(?:option|trial|rank)_(\d{1,7})")


def write_rank_files(result: Result, trial_folder: Path, stamp: str) -> list[Path]:
    """Write what each rank of a run of one trial measured into `trial_folder`, and return the paths."""
    plan = result.plan.kvcache
    paths = []
    for rank in result.ranks:
        if plan is None or not rank.trials:
            continue
        folder = trial_folder / f"rank_{rank.rank}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RESULT_NAME.format(stamp=stamp)
        _json(path, rank_document(rank.trials[-1], plan, rank=rank.rank, host=rank.host))
        paths.append(path)
    return paths


def _json(path: Path, document: Any) -> None:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


# -- a rank ------------------------------------------------------------------------------------------------------------


def rank_document(note: KvNote, plan: KvPlan, *, rank: int, host: str) -> dict[str, Any]:
    """Return a rank's document: the first latencies one by one, the summary, and the histograms of all."""
    histograms = {name: Histogram.decode(text) for name, text in note.histograms.items()}
    return {
        **{told: note.samples.get(name, []) for name, told in _RAW.items()},
        "storage_read_device_latencies_ms": note.samples.get("storage_read_device", []),
        "storage_write_device_latencies_ms": note.samples.get("storage_write_device", []),
        "requests_completed": note.counts.requests,
        "summary": _summary(note, plan, histograms),
        "stoker": {
            "rank": rank,
            "host": host,
            "seed": plan.seed + rank,
            "complete": note.complete,
            "started_utc": note.started_utc,
            "tiers": msgspec.to_builtins(note.tiers),
            "counts": msgspec.to_builtins(note.counts),
            "histograms": note.histograms,
        },
    }


def _summary(note: KvNote, plan: KvPlan, histograms: dict[str, Histogram]) -> dict[str, Any]:
    counts, seconds = note.counts, note.seconds
    return {
        "total_requests": counts.requests,
        "total_tokens": counts.tokens,
        "elapsed_time": seconds,
        "avg_throughput_tokens_per_sec": _rate(counts.tokens, seconds),
        "total_storage_io_time": counts.io_seconds,
        "storage_throughput_tokens_per_sec": _rate(counts.tokens, counts.io_seconds),
        "requests_per_second": _rate(counts.requests, seconds),
        "end_to_end_latency_ms": _latency(histograms.get("request")),
        "storage_io_latency_ms": _latency(histograms.get("io")),
        "generation_latency_ms": _latency(histograms.get("generation")),
        "cache_stats": _cache_stats(note, plan, histograms),
        "qos_metrics": _qos(histograms),
        "prefix_cache_stats": {
            "prefix_hits": counts.prefix_hits,
            "prefix_misses": counts.prefix_misses,
        },
        "multi_turn_stats": {
            "cache_hits": counts.turn_hits,
            "cache_misses": counts.turn_misses,
            "hit_rate": _rate(counts.turn_hits, counts.turn_hits + counts.turn_misses),
        },
        "autoscaling_stats": note.scaling,
    }


def _rate(amount: float, over: float) -> float:
    return amount / over if over > 0 else 0.0


def _latency(histogram: Histogram | None) -> dict[str, float]:
    if histogram is None or not histogram.count:
        return {}
    quantiles = {name: histogram.quantile_ns(at) / 1e6 for name, at in _QUANTILES.items()}
    return {"mean": histogram.mean_ns() / 1e6, **quantiles}


def _qos(histograms: dict[str, Histogram]) -> dict[str, Any]:
    found = {}
    for name, histogram in histograms.items():
        if name.startswith("qos_"):
            found[name.removeprefix("qos_")] = {"total_requests": histogram.count, "latency_ms": _latency(histogram)}
    return found


def _cache_stats(note: KvNote, plan: KvPlan, histograms: dict[str, Histogram]) -> dict[str, Any]:
    counts = note.counts
    tiers = {name: note.tiers.get(name, TierCounts()) for name in TIERS}
    read = sum(tier.read_bytes for tier in tiers.values())
    written = sum(tier.write_bytes + tier.demote_write_bytes for tier in tiers.values())
    stats: dict[str, Any] = {
        "cache_hit_rate": _rate(counts.hits, counts.hits + counts.misses),
        "cache_hits": counts.hits,
        "cache_misses": counts.misses,
        "prefill_writes": counts.prefill_writes,
        "decode_reads": counts.decode_reads,
        "offloads_cpu": tiers["gpu"].demotions,
        "offloads_storage": tiers["cpu"].demotions,
        "deletes_storage": tiers[STORAGE].deletes,
        "total_read_gb": read / GiB,
        "total_write_gb": written / GiB,
        "read_write_ratio": _rate(read, written),
        "read_iops": sum(tier.reads for tier in tiers.values()),
        "write_iops": sum(tier.writes for tier in tiers.values()),
        "storage_tokens_processed": tiers[STORAGE].write_bytes // max(1, plan.token_bytes),
    }
    for name, tier in tiers.items():
        stats |= _tier_stats(name, tier, note.seconds, histograms)
    return {**stats, "storage_health": _health(stats, plan)}


def _tier_stats(name: str, tier: TierCounts, seconds: float, histograms: dict[str, Histogram]) -> dict[str, Any]:
    read, written = tier.read_bytes, tier.write_bytes + tier.demote_write_bytes
    stats: dict[str, Any] = {
        f"{name}_entries": tier.entries,
        f"{name}_gb": tier.bytes / GiB,
        f"tier_{name}_kv_bytes_read_gb": read / GiB,
        f"tier_{name}_kv_bytes_written_gb": written / GiB,
        f"tier_{name}_read_bandwidth_gbps": _rate(read / GiB, seconds),
        f"tier_{name}_write_bandwidth_gbps": _rate(written / GiB, seconds),
    }
    for way in ("read", "write"):
        for part in ("", "_device", "_host"):
            histogram = histograms.get(f"{name}_{way}{part}")
            if histogram is not None and histogram.count:
                stats |= {f"{name}_{way}{part}_{at}_ms": value for at, value in _latency(histogram).items()}
    return stats


def _health(stats: dict[str, Any], plan: KvPlan) -> dict[str, Any]:
    """Return the reference's goals, as the profile has them; they are no criteria of a submission."""
    if plan.profile == "throughput":
        rate = stats["tier_storage_read_bandwidth_gbps"]
        criteria = [{"name": "storage read bandwidth > 0", "actual": rate, "passed": rate > 0}]
    else:
        limits = {f"{name}_p95_ms": 1000 * limit for name, limit in GOALS.items()}
        criteria = [
            {"name": f"{name} < {limit:g}", "actual": stats[name], "passed": stats[name] < limit}
            for name, limit in limits.items()
            if name in stats
        ]
        rate = stats["cache_hit_rate"]
        criteria.append({"name": f"cache_hit_rate > {HIT_GOAL:g}", "actual": rate, "passed": rate > HIT_GOAL})
    passed = all(each["passed"] for each in criteria)
    return {"overall_status": "PASS" if passed else "FAIL", "criteria": criteria}


# -- all of them -------------------------------------------------------------------------------------------------------


class _Own(msgspec.Struct):
    histograms: dict[str, str] = {}


class _RankFile(msgspec.Struct):
    summary: dict[str, Any] = {}
    stoker: _Own = msgspec.field(default_factory=_Own)


class SummaryOf(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be run: which options, how many trials of each, by how many ranks on how many hosts."""

    stamp: str
    options: tuple[int, ...]
    trials: int
    ranks: int
    hosts: int


def write_summary(leaf: Path, of: SummaryOf, failures: dict[str, str]) -> dict[str, Any]:
    """Write the summary of what the ranks' files below `leaf` tell, and return it.

    `failures` tell, by `option_<o>/trial_<t>`, why a trial failed. Raises CorruptError for a file that is none.
    """
    options = {str(option): _option(leaf, option, of) for option in of.options}
    document = {
        "schema_version": "1.0",
        "run_datetime": of.stamp,
        "npernode": of.ranks // max(1, of.hosts),
        "host_count": of.hosts,
        "total_ranks": of.ranks,
        "trials_per_option": of.trials,
        "options": options,
        "partial_failure": bool(failures) or any(found["partial_failure"] for found in options.values()),
        "trial_failures": failures,
    }
    for name in SUMMARY_FILES:
        _json(leaf / name, document)
    return document


def _option(leaf: Path, option: int, of: SummaryOf) -> dict[str, Any]:
    missing: list[str] = []
    trials: list[dict[int, _RankFile]] = []
    for trial in range(1, of.trials + 1):
        place = f"option_{option}/trial_{trial}"
        ranks = _rank_files(leaf / place)
        trials.append(ranks)
        missing += [f"{place}/rank_{rank}" for rank in range(of.ranks) if rank not in ranks]
    every = [file for ranks in trials for file in ranks.values()]
    seen = [list(ranks.values()) for ranks in trials if ranks]
    histograms = merge_encoded(file.stoker.histograms for file in every)
    return {
        "option": option,
        "aggregated_read_bandwidth_gbps": _summed(seen, "cache_stats", "tier_storage_read_bandwidth_gbps"),
        "aggregated_write_bandwidth_gbps": _summed(seen, "cache_stats", "tier_storage_write_bandwidth_gbps"),
        "aggregated_avg_throughput_tokens_per_sec": _summed(seen, "avg_throughput_tokens_per_sec"),
        "aggregated_storage_throughput_tokens_per_sec": _summed(seen, "storage_throughput_tokens_per_sec"),
        "aggregated_device_read_p95_ms": _largest(every, "storage_read_device_p95_ms"),
        "aggregated_device_write_p95_ms": _largest(every, "storage_write_device_p95_ms"),
        "pooled_device_read_p95_ms": _pooled(histograms, "storage_read_device"),
        "pooled_device_write_p95_ms": _pooled(histograms, "storage_write_device"),
        "rank_count": len({rank for ranks in trials for rank in ranks}),
        "trial_count": len(seen),
        "partial_failure": bool(missing),
        "missing_files": missing,
        "cpu_tier_ranks": sorted({rank for ranks in trials for rank, file in ranks.items() if _idle(file)}),
    }


def _rank_files(folder: Path) -> dict[int, _RankFile]:
    """Return the document of each rank of a trial. Raises CorruptError for one that is too large or none."""
    found = {}
    for path in sorted(folder.glob("rank_*/kvcache_results_*.json")):
        named = _NAMED.fullmatch(path.parent.name)
        if named is None:
            continue
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CorruptError("output of a rank is too large", where=str(path), expected="at most 256 MiB")
        try:
            found[int(named[1])] = msgspec.json.decode(path.read_bytes(), type=_RankFile)
        except msgspec.DecodeError as error:
            raise CorruptError("not the output of a rank", where=str(path), got=str(error)) from error
    return found


def _told(file: _RankFile, *keys: str) -> float | None:
    value: Any = file.summary
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _summed(trials: Sequence[Sequence[_RankFile]], *keys: str) -> float:
    sums = [sum(_told(file, *keys) or 0.0 for file in files) for files in trials]
    return statistics.fmean(sums) if sums else 0.0


def _largest(files: Iterable[_RankFile], key: str) -> float | None:
    return max((value for file in files if (value := _told(file, "cache_stats", key)) is not None), default=None)


def _pooled(histograms: dict[str, str], name: str) -> float | None:
    return Histogram.decode(histograms[name]).quantile_ns(0.95) / 1e6 if name in histograms else None


def _idle(file: _RankFile) -> bool:
    """Tell whether a rank never had an entry in storage."""
    keys = ("storage_entries", "tier_storage_kv_bytes_read_gb", "tier_storage_kv_bytes_written_gb")
    return not any(_told(file, "cache_stats", key) for key in keys)
