"""What a rank does, by its plan: train, with checkpoints or without, save and load checkpoints alone, or serve a
collection of vectors."""

from stoker.bench.workloads.checkpointing import run_checkpoints
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob, run_rank
from stoker.bench.workloads.vectordb import run_vectors


def run_job(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured.

    Raises what `run_rank`, `run_checkpoints` and `run_vectors` do.
    """
    if job.plan.vectors is not None:
        return run_vectors(job)
    return run_rank(job) if job.plan.trains else run_checkpoints(job)
