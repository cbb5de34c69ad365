"""The files of the reference's programs for a vector database, from a saved run: figures, recall, verdict, requests.

    statistics.json, summary.json   the figures; the summary has the recall's mean in place of each query's
    recall_stats.json               the recall over the queries
    result_verdict.json             valid, degraded or invalid, with what the exact answers cover
    config.json                     what was run
    milvus_benchmark_p<N>.csv       a line a request of each process; recall_hits_p<N>.jsonl its first answers
    multi_node_summary.json         a line a host, of a run on several

What is told of disks is told only where the database's data lie on a client; `applicable` is false else, and says why.
"""

import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.bench.rules import judge
from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic
from stoker.core.result import RANKS_FOLDER, SERIES_FILE, Result, load_result
from stoker.core.vectors import LOADING, VectorFigures, VectorPlan

STATISTICS: Final = "statistics.json"
SUMMARY: Final = "summary.json"
RECALL: Final = "recall_stats.json"
VERDICT: Final = "result_verdict.json"
CONFIG: Final = "config.json"
NODES: Final = "multi_node_summary.json"
_HITS: Final = "recall_hits_p{rank}.jsonl"
_REQUESTS: Final = "milvus_benchmark_p{rank}.csv"
_HITS_BYTES_MAX: Final = 1 << 30
_COLUMNS: Final = ("request_ns", "end_ns", "samples")
_LATENCIES: Final = {
    "min": "min",
    "max": "max",
    "mean": "mean",
    "median": "p50",
    "p95": "p95",
    "p99": "p99",
    "p999": "p99.9",
    "p9999": "p99.99",
}


def write_vector_files(run_folder: Path, leaf: Path) -> list[Path]:
    """Write the files of a run into its leaf and return their paths.

    Raises CorruptError for a run folder without a sound result of this workload.
    """
    result = load_result(run_folder)
    what, figures = result.plan.vectors, result.vectors
    if what is None or figures is None:
        raise CorruptError("not a run on a collection of vectors", where=str(run_folder))
    documents: dict[str, Any] = {CONFIG: _config(result, what)}
    if what.work == LOADING:
        documents[SUMMARY] = _loaded(result, what, figures)
    else:
        statistics = _statistics(result, what, figures)
        documents[STATISTICS] = statistics
        documents[SUMMARY] = {**statistics, "recall": _recall(figures, each=False)}
        documents[RECALL] = _recall(figures, each=True)
        documents[VERDICT] = _verdict(result, figures)
    if len({rank.host for rank in result.ranks}) > 1 or result.plan.ranks > 1:
        documents[NODES] = _nodes(result)
    paths = [_json(leaf / name, document) for name, document in documents.items()]
    return [*paths, *(_requests(run_folder, leaf, result) if what.work != LOADING else ())]


def _json(path: Path, document: Any) -> Path:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


def _config(result: Result, what: VectorPlan) -> dict[str, Any]:
    return {
        "database": {"database": what.engine, "version": result.vectors.engine_version if result.vectors else ""},
        "dataset": {
            "collection_name": what.collection,
            "num_vectors": what.recipe.vectors,
            "dimension": what.recipe.dimension,
            "distribution": what.recipe.distribution,
            "num_shards": what.shards,
            "batch_size": what.insert_batch,
            "chunk_size": what.chunk,
            "vector_dtype": "FLOAT_VECTOR",
        },
        "index": {"index_type": what.index.kind, "metric_type": what.index.metric, **what.index.parameters},
        "search": {"limit": what.k, "search_ef": what.effort, "recall_k": what.recall_k},
        "run": {
            "mode": what.mode,
            "num_query_processes": result.plan.ranks,
            "batch_size": what.batch,
            "report_count": what.report_count,
            "runtime_seconds": what.seconds,
            "queries": what.queries,
            "num_query_vectors": what.queries_made,
        },
        "storage": {"storage_root": what.storage_root},
    }


def _identity(what: VectorPlan, figures: VectorFigures) -> dict[str, Any]:
    return {
        "num_vectors": figures.truth.total if figures.truth is not None else figures.vectors,
        "dimension": what.recipe.dimension,
        "index_type": what.index.kind,
        "database": what.engine,
    }


def _loaded(result: Result, what: VectorPlan, figures: VectorFigures) -> dict[str, Any]:
    return {
        **_identity(what, figures),
        "status": result.status,
        "collection_name": what.collection,
        "inserted_vectors": figures.vectors,
        "insert_rate_vectors_per_second": figures.vectors_per_second,
        "index_build_seconds": figures.built_seconds,
        "total_time_seconds": figures.seconds,
        "disk_io": _disk(what, figures),
    }


def _statistics(result: Result, what: VectorPlan, figures: VectorFigures) -> dict[str, Any]:
    told: dict[str, Any] = {
        **_identity(what, figures),
        "status": result.status,
        "total_queries": figures.queries,
        "total_time_seconds": figures.seconds,
        "throughput_qps": figures.queries_per_second,
    }
    for name, quantile in _LATENCIES.items():
        told[f"{name}_latency_ms"] = _milliseconds(figures.query_latencies, quantile)
        told[f"{name}_batch_time_ms"] = _milliseconds(figures.latencies, quantile)
    return told | {
        "batch_count": figures.requests,
        "successful_batches": figures.requests - figures.failed_requests,
        "failed_batches": figures.failed_requests,
        "num_clients": result.plan.ranks,
        "client_cpu_ratio": result.metrics.client_cpu_ratio,
        "recall": _recall(figures, each=True),
        "disk_io": _disk(what, figures),
    }


def _milliseconds(latencies: dict[str, float], name: str) -> float | None:
    seconds = latencies.get(name)
    return None if seconds is None else seconds * 1e3


def _recall(figures: VectorFigures, *, each: bool) -> dict[str, Any]:
    found = figures.recall
    if found is None:
        return {"num_queries_evaluated": 0}
    told = {
        "recall_at_k": found.mean,
        "mean": found.mean,
        "mean_recall": found.mean,
        "median": found.median,
        "min": found.low,
        "max": found.high,
        "p5": found.p5,
        "p95": found.p95,
        "p99": found.p99,
        "tie_tolerant_mean": found.tolerant_mean,
        "k": found.k,
        "num_queries_evaluated": found.queries,
        "num_queries_without_answer": found.missing,
    }
    return {**told, "per_query": found.per_query} if each else told


def _disk(what: VectorPlan, figures: VectorFigures) -> dict[str, Any]:
    """Return what the device under the collection did; of a database elsewhere a client's disks say nothing."""
    if figures.device_reads is None:
        return {"applicable": False, "status": "not counted", "reason": figures.disk_reason}
    seconds = figures.seconds or 1.0
    reads, writes = figures.device_reads, figures.device_writes or 0
    return {
        "applicable": True,
        "status": "counted",
        "scope": "the block device under the storage root, once on each client host that holds it",
        "storage_target": {"path": what.storage_root, "devices": sorted(figures.devices)},
        "total_bytes_read": figures.device_read_bytes,
        "total_bytes_written": figures.device_write_bytes,
        "read_bytes_per_second": (figures.device_read_bytes or 0) / seconds,
        "write_bytes_per_second": (figures.device_write_bytes or 0) / seconds,
        "read_iops": reads / seconds,
        "total_iops": (reads + writes) / seconds,
        "reads_per_query": figures.reads_per_query,
        "bytes_read_by_device": figures.devices,
    }


def _verdict(result: Result, figures: VectorFigures) -> dict[str, Any]:
    """Return the tool's own verdict: what blocks and makes invalid, and what only weakens."""
    invalid = [found for found in judge(result).findings if found.severity == "blocks" and _breaks(found.rule)]
    truth, recall = figures.truth, figures.recall
    weak = recall is not None and recall.missing > 0
    reason = "; ".join(f"{found.title}: {found.observed}" for found in invalid)
    if not reason and weak and recall is not None:
        reason = f"{recall.missing} queries were never answered"
    return {
        "result": "invalid" if invalid else "degraded" if weak else "valid",
        "valid": not invalid,
        "reason": reason,
        "num_queries_evaluated": recall.queries if recall is not None else 0,
        "flat_setup": {
            "ok": truth.ok if truth is not None else False,
            "coverage": truth.coverage if truth is not None else 0.0,
            "total_vectors": truth.total if truth is not None else 0,
            "copied_vectors": truth.copied if truth is not None else 0,
            "had_recoverable_error": False,
            "reason": truth.reason if truth is not None else "there are no exact answers",
            "reused": truth.reused if truth is not None else False,
            "agreement": truth.agreement if truth is not None else None,
        },
        "recall_summary": _recall(figures, each=False),
    }


def _breaks(rule: str) -> bool:
    """Tell whether a rule's breach makes the run itself invalid, not only what it says of the storage."""
    return rule.startswith(("run.", "rank.")) or rule in (
        "vector.answered",
        "vector.truth",
        "vector.recall",
        "vector.loaded",
    )


def _nodes(result: Result) -> dict[str, Any]:
    """Return what each client host did."""
    hosts: dict[str, dict[str, Any]] = {}
    for rank in result.ranks:
        told = hosts.setdefault(
            rank.host, {"clients": 0, "queries": 0, "vectors": 0, "failed_batches": 0, "seconds": 0.0}
        )
        note = rank.vectors
        told["clients"] += 1
        if note is not None:
            told["queries"] += note.queries
            told["vectors"] += note.vectors
            told["failed_batches"] += note.failed
            told["seconds"] = max(told["seconds"], note.seconds)
    return {"num_nodes": len(hosts), "num_clients": len(result.ranks), "nodes": hosts}


def _requests(run_folder: Path, leaf: Path, result: Result) -> Iterator[Path]:
    """Write each process's requests and first answers; what is not there is left out."""
    for rank in result.ranks:
        hits = run_folder / RANKS_FOLDER / _HITS.format(rank=rank.rank)
        if hits.is_file() and hits.stat().st_size <= _HITS_BYTES_MAX:
            path = leaf / hits.name
            write_atomic(path, hits.read_bytes())
            yield path
        columns = _series(run_folder, rank.rank)
        if columns is not None:
            path = leaf / _REQUESTS.format(rank=rank.rank)
            write_atomic(path, "".join(_lines(rank.rank, columns, result)).encode())
            yield path


def _series(run_folder: Path, rank: int) -> list[NDArray[np.int64]] | None:
    try:
        with np.load(run_folder / SERIES_FILE, allow_pickle=False) as file:
            return [file[f"rank{rank:04d}/{name}"] for name in _COLUMNS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _lines(rank: int, columns: list[NDArray[np.int64]], result: Result) -> Iterator[str]:
    """Yield a line a request; times are of the run's start plus what the client's clock counted from its first one."""
    what = result.plan.vectors
    size = what.batch if what is not None else 1
    begun, ended, answered = (each.tolist() for each in columns)
    start = datetime.fromisoformat(result.started_utc).timestamp() if result.started_utc else 0.0
    yield "process_id,batch_id,timestamp,batch_size,batch_time_seconds,avg_query_time_seconds,success\n"
    for at, (first, last, queries) in enumerate(zip(begun, ended, answered, strict=True)):
        seconds = (last - first) / 1e9
        moment = start + (first - begun[0]) / 1e9
        asked = queries or size
        yield f"{rank},{at},{moment:.6f},{asked},{seconds:.9f},{seconds / asked:.9f},{queries > 0}\n"
