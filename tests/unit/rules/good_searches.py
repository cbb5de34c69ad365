"""A search that every rule accepts, and how to break each rule."""

from typing import Any

import msgspec

from stoker.core.plan import DatasetSpec, Job, Spread, TrainingPlan
from stoker.core.result import RankResult, Result
from stoker.core.vectors import (
    IndexSpec,
    RecallFigures,
    Recipe,
    TruthFacts,
    VectorFigures,
    VectorNote,
    VectorPlan,
)

WHAT = VectorPlan(
    work="search",
    engine="milvus",
    address="db7:19530",
    collection="c",
    recipe=Recipe(5000, 64, "clustered", 42),
    index=IndexSpec("HNSW", "COSINE", {"M": 16, "efConstruction": 200}),
    recall_target=0.9,
)
FIGURES = VectorFigures(
    queries=2000,
    requests=2000,
    seconds=10.0,
    queries_per_second=200.0,
    latencies={"mean": 0.01, "p50": 0.009, "p95": 0.02, "p99": 0.03, "p99.9": 0.04, "max": 0.05},
    query_latencies={"mean": 0.01, "p50": 0.009, "p95": 0.02, "p99": 0.03, "p99.9": 0.04, "max": 0.05},
    vectors=5000,
    reads_per_query=60.0,
    device_reads=120_000,
    device_writes=0,
    device_read_bytes=120_000 * 4096,
    device_write_bytes=0,
    devices={"nvme0n1": 120_000 * 4096},
    truth=TruthFacts(ok=True, total=5000, copied=5000, metric="COSINE", k=10),
    recall=RecallFigures(10, 1000, 0.95, 1.0, 0.5, 1.0, 0.8, 1.0, 1.0, 0.95),
)


def good_search(**changes: Any) -> Result:
    """Return the good result; `plan__x`, `figures__x`, `truth__x`, `recall__x`, `rank__x` and `x` change one thing."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in ("plan", "figures", "truth", "recall", "rank", "own")}
    for name, value in changes.items():
        where, mark, key = name.partition("__")
        parts[where if mark else "own"][key if mark else name] = value
    replace = msgspec.structs.replace
    what = replace(WHAT, **parts["plan"])
    figures = replace(FIGURES, **{"truth": replace(FIGURES.truth, **parts["truth"]), **parts["figures"]})
    if "recall" not in parts["figures"]:
        figures.recall = replace(FIGURES.recall, **parts["recall"])
    note = VectorNote(requests=2000, queries=2000, seconds=10.0, complete=True)
    rank = RankResult(0, "client", cpu_seconds=2.0, wall_seconds=10.0, vectors=note)
    for key, value in parts["rank"].items():
        setattr(rank, key, value)
    plan = TrainingPlan("HNSW", DatasetSpec("none", 0), 1, 0, Spread(), vectors=what, target_url="milvus at db7:19530")
    result = Result("id", Job("run vectordb"), plan, status="complete", ranks=[rank], vectors=figures)
    result.metrics.client_cpu_ratio = 0.1
    for key, value in parts["own"].items():
        setattr(result, key, value)
    return result


SEARCH_BREACHES: dict[str, dict[str, Any]] = {
    "vector.loaded": {"plan__work": "load", "figures__vectors": 4999},
    "vector.answered": {"figures__failed_requests": 1},
    "vector.truth": {"truth__copied": 4999, "truth__ok": False},
    "vector.recall": {"recall__mean": 0.0, "plan__recall_target": 0.0},
    "vector.unread": {"figures__device_reads": 12, "figures__reads_per_query": 0.006},
    "vector.client": {"rank__cpu_seconds": 9.5},
    "vector.target": {"recall__mean": 0.899},
    "vector.uncounted": {"figures__device_reads": None, "figures__reads_per_query": None},
    "vector.data": {"plan__recipe": Recipe(5000, 64, "uniform", 42)},
    "vector.few": {"figures__requests": 999},
}
