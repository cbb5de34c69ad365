"""Small datasets and plans for ranks that really run."""

from pathlib import Path
from typing import Any

from stoker.bench.workloads.comm import Comm, SoloComm
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob, run_rank
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

SPEC = DatasetSpec(format="npz", files=24, record_length_bytes=4096)


def make_dataset(folder: Path, spec: DatasetSpec = SPEC) -> str:
    """Generate a dataset below `folder` and return its URL."""
    store = open_store(str(folder / "data"), create=True)
    try:
        generate(store, spec)
    finally:
        store.close()
    return str(folder / "data")


def plan(*, ranks: int = 1, seconds: float = 0.001, **changes: Any) -> TrainingPlan:
    """Return a plan of 2 samples a step."""
    values: dict[str, Any] = {"model": "test", "dataset": SPEC, "batch_size": 2, "read_threads": 2, **changes}
    return TrainingPlan(ranks=ranks, computation=Spread(parameters={"value": seconds}), **values)


def run(
    planned: TrainingPlan, url: str, folder: Path, *, comm: Comm | None = None, **how: Any
) -> tuple[RankReport, Rows]:
    """Run one rank in this process."""
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    return run_rank(RankJob(planned, comm or SoloComm(), url, folder, **how))
