"""What a rank does, by its plan: train, with checkpoints or without, save and load checkpoints alone, serve a KV cache,
or search a collection of vectors."""

from stoker.bench.workloads.checkpointing import run_checkpoints
from stoker.bench.workloads.kvcache import run_kvcache
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob, run_rank
from stoker.bench.workloads.vectordb import run_vectors


def run_job(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured. Raises what the workload's own function does."""
    if job.plan.vectors is not None:
        return run_vectors(job)
    if job.plan.kvcache is not None:
        return run_kvcache(job)
    return run_rank(job) if job.plan.trains else run_checkpoints(job)
