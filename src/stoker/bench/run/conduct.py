"""Conducting a run: lay out its folder, launch the ranks, gather what they tell, save the result.

However the run ends there is a result: complete; partial when a signal or a rank that does not answer cut it short;
failed, with the reason and all that was measured, when a rank died. Only a second signal leaves none; `recover` makes
one of the logs then, as after a kill.
"""

from pathlib import Path

from stoker.bench.run.conduct_mpi import conduct_mpi
from stoker.bench.run.conduct_tcp import conduct_tcp
from stoker.bench.run.hosts.collect import Collection
from stoker.bench.run.hosts.discover import discover
from stoker.bench.run.kvcache import check_kv
from stoker.bench.run.launch_local import Outcome, run_local
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.record import RunRecord, read_ranks
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.telling import OnProgress, ProgressEvent, Teller
from stoker.bench.run.vectors.planning import check_vectors
from stoker.bench.workloads.reports import RankReport
from stoker.checkpoint.layout import check_shape
from stoker.core.errors import UsageError
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import Result
from stoker.storage.buffers import PAGE_BYTES

__all__ = ("ProgressEvent", "check_plan", "conduct")


def conduct(
    job: Job, plan: TrainingPlan, target_url: str, folder: Path, *, progress: OnProgress | None = None
) -> Result:
    """Run the plan against `target_url`, keep everything in `folder`, and return the saved result.

    Under MPI every rank calls this and gets the same result; what counts is what rank 0 passes. `target_url` holds
    nothing secret: credentials come from the environment.

    Raises UsageError for a plan that cannot be run, MissingExtraError for MPI without mpi4py, AlreadyExistsError when
    the folder holds a run, InterruptedRunError on a second signal.
    """
    check_plan(plan)
    placed = discover() if plan.launcher in ("auto", "tcp") else None
    if placed is not None:
        return conduct_tcp(job, plan, target_url, folder, found=placed, progress=progress)
    launcher, found = choose_launcher(plan.launcher)
    if launcher == "mpi" and found is not None:
        return conduct_mpi(job, plan, target_url, folder, found_by=found.found_by, progress=progress)
    return _conduct_local(job, plan, target_url, folder, progress)


def check_plan(plan: TrainingPlan) -> None:
    """Raise UsageError for a plan that no run can follow."""
    if plan.vectors is not None:
        check_vectors(plan, plan.vectors)
        return
    if plan.kvcache is not None:
        check_kv(plan)
        return
    if not plan.trains:
        _check_checkpoints(plan)
        return
    checks = [
        ("ranks", plan.ranks >= 1, "at least 1"),
        ("batch_size", plan.batch_size >= 1, "at least 1"),
        ("epochs", plan.epochs >= 0, "at least 0"),
        ("steps_max", plan.steps_max >= 0, "at least 0"),
        ("duration_seconds", plan.duration_seconds >= 0, "at least 0"),
        ("warmup_steps", plan.warmup_steps >= 0, "at least 0"),
        ("exclude_start_steps", plan.exclude_start_steps >= 0, "at least 0"),
        ("exclude_end_steps", plan.exclude_end_steps >= 0, "at least 0"),
    ]
    for name, good, expected in checks:
        if not good:
            raise UsageError("plan cannot be run", where=name, expected=expected, got=str(getattr(plan, name)))
    if plan.epochs == 0 and plan.duration_seconds == 0:
        raise UsageError("plan has no end", expected="a number of epochs, or a duration")


def _check_checkpoints(plan: TrainingPlan) -> None:
    what = plan.checkpoint
    assert what is not None
    check_shape(what.shape, plan.ranks)
    for name in ("writes", "reads", "interval_seconds", "keep"):
        if getattr(what, name) < 0:
            raise UsageError("plan cannot be run", where=name, expected="at least 0", got=str(getattr(what, name)))
    if what.buffer_bytes < 1 or what.buffer_bytes % PAGE_BYTES:
        expected = f"a multiple of {PAGE_BYTES}"
        raise UsageError("plan cannot be run", where="buffer_bytes", expected=expected, got=str(what.buffer_bytes))
    if not what.writes and not what.reads:
        raise UsageError("plan has nothing to do", expected="checkpoints to write or to read")


def _conduct_local(job: Job, plan: TrainingPlan, target_url: str, folder: Path, progress: OnProgress | None) -> Result:
    with SignalWatch() as watch:
        record = RunRecord(job, plan, target_url, folder, launcher=f"local processes, {plan.ranks}")
        hosts = Collection(folder, plan.host_interval_seconds, plan.sample_hosts, samples_max=plan.host_samples_max)
        try:
            outcome = run_local(
                plan,
                target_url,
                folder,
                stop_wanted=lambda: bool(watch.received),
                on_progress=Teller(plan, record, progress).tell,
            )
            parts = read_ranks(folder, plan.ranks)
            status, reason = _local_status(plan, outcome, watch, [report for report, _ in parts])
            return record.finish(status, reason, parts, hosts=hosts.finish())
        finally:
            hosts.stop()
            record.close()


def _local_status(
    plan: TrainingPlan, outcome: Outcome, watch: SignalWatch, reports: list[RankReport]
) -> tuple[str, str]:
    if outcome.failure:
        return "failed", outcome.failure
    killed = ", ".join(f"rank {rank}" for rank in outcome.killed)
    silent = f"{killed} did not come to an end and was killed" if killed else ""
    if watch.received:
        return "partial", f"stopped by {watch.name}" + (f"; {silent}" if silent else "")
    if killed:
        return "partial", f"{silent} after the planned time"
    finished = sum(report.finished for report in reports)
    if finished < plan.ranks:
        return "failed", f"{plan.ranks - finished} of {plan.ranks} ranks left no complete log"
    return "complete", ""
