"""What `run vectordb` decides, and what it refuses before anything is touched."""

from typing import Any

import pytest

from stoker.bench.run.hosts.events import ProgressEvent
from stoker.bench.run.vectors.options import VECTORDB
from stoker.bench.run.vectors.places import place_of
from stoker.bench.run.vectors.planning import loading, plan_vectors
from stoker.cli.live import run_text, work_text
from stoker.cli.plan import plan_lines
from stoker.core.errors import UsageError
from stoker.core.options import resolve
from stoker.core.plan import TrainingPlan
from stoker.core.vectors import LOADING, Recipe


def plan_of(target: str = "milvus://db7", **flags: Any) -> TrainingPlan:
    return plan_vectors(resolve(VECTORDB, flags=flags, file={}, environment={}), place_of(target))


def test_defaults() -> None:
    plan = plan_of()
    what = plan.vectors
    assert what is not None and not plan.trains
    assert (what.mode, what.seconds, plan.duration_seconds, what.recall_k) == ("timed", 60.0, 60.0, 10)
    assert what.recipe == Recipe(100_000, 768, "clustered", 42)
    assert what.index.parameters == {"M": 16, "efConstruction": 200}
    assert what.collection == "mlps_100000_1shards_768dim_clustered_hnsw"
    assert plan_lines(plan)["database"] == "milvus at db7:19530"
    load = loading(plan, 3)
    assert load.vectors is not None and (load.vectors.work, load.ranks, load.duration_seconds) == (LOADING, 3, 0.0)


def test_a_count_of_queries_has_no_duration() -> None:
    plan = plan_of(queries=500, processes=4)
    assert plan.vectors is not None and plan.vectors.mode == "query_count"
    assert (plan.duration_seconds, plan.ranks) == (0.0, 4)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"queries": 5, "duration": "5s"}, "--queries and --duration"),
        ({"queries": 3, "processes": 4}, "a query a process"),
        ({"recall_k": 11}, "neighbours asked for"),
        ({"k": 50, "vectors": 20, "recall_k": 10}, "the 20 vectors"),
        ({"batch_size": 2000}, "the 1000 queries"),
        ({"collection": "a b"}, "not a collection's name"),
        ({"gt_collection": "a;b"}, "not a collection's name"),
        ({"gt_collection": "copy", "truth": "x.npz"}, "--gt-collection and --truth"),
        ({"sweep": ["1.5"]}, "--sweep"),
        ({"index": "TREE"}, "--index"),
    ],
)
def test_what_no_run_can_follow(flags: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        plan_of(**flags)


def test_an_index_that_an_engine_has_not() -> None:
    with pytest.raises(UsageError, match="has no index 'DISKANN'"):
        plan_of("some/folder", index="DISKANN")


@pytest.mark.parametrize(
    ("phase", "steps", "told"),
    [("insert", 50, "5/50 vectors"), ("index", 50, "5/50 vectors"), ("search", 0, "5 requests")],
)
def test_progress_is_told_in_words_of_vectors(phase: str, steps: int, told: str) -> None:
    event = ProgressEvent(
        phase=phase,
        epoch=1,
        step=5,
        steps=steps,
        au_ratio=0.0,
        bytes_per_second=0.0,
        elapsed_seconds=1.0,
        limit_seconds=0.0,
    )
    assert run_text(event) == told and work_text(event) == f"{phase} {told}"
