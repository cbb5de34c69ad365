"""Conducting a run whose ranks are MPI's: every rank calls the same, rank 0 keeps the record.

Nothing is assumed of a shared file system but for recovery: each rank writes its log below the run's folder on its own
host, and what it measured goes to rank 0 as bytes.
"""

from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from stoker.bench.run.assemble import Part
from stoker.bench.run.launch_mpi import MpiComm
from stoker.bench.run.process import keep_time_sharply
from stoker.bench.run.record import RunRecord, make_layout
from stoker.bench.run.recover import recover
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.telling import OnProgress, Teller
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob, run_rank
from stoker.core.errors import StokerError, UsageError
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import STEP_COLUMNS, Result, save_result


class _Order(msgspec.Struct, frozen=True):
    """What rank 0 decides for all."""

    plan: TrainingPlan
    target_url: str
    folder: str


class _Passed(msgspec.Struct, frozen=True):
    """What a rank sends to rank 0."""

    report: RankReport
    rows: bytes


def conduct_mpi(
    job: Job, plan: TrainingPlan, target_url: str, folder: Path, *, found_by: str, progress: OnProgress | None
) -> Result:
    """Run this rank and, on rank 0, conduct the run; return the result on every rank.

    Raises UsageError when MPI started another number of ranks than planned. A rank that fails ends all of them, after
    a failed result was saved where that is possible.
    """
    comm = MpiComm()
    order = _agree(comm, _Order(plan, target_url, str(folder.absolute())), folder)
    if order.plan.ranks != comm.size:
        raise UsageError(
            "MPI started another number of ranks than the plan has",
            expected=f"{order.plan.ranks} ranks",
            got=f"{comm.size}",
            remedy=f"start it with mpirun -n {order.plan.ranks}",
        )
    keep_time_sharply()
    with SignalWatch() as watch:
        record = _begin(comm, job, order, found_by)
        try:
            return _take_part(comm, order, watch, record, progress)
        except BaseException as error:
            with suppress(StokerError, OSError):
                save_result(Path(order.folder), recover(Path(order.folder)))
            comm.abort(_told(error))


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"


def _agree(comm: MpiComm, mine: _Order, folder: Path) -> _Order:
    """Return what rank 0 decided; a folder that another rank made for itself is removed if it is empty."""
    order = msgspec.json.decode(comm.broadcast(msgspec.json.encode(mine)), type=_Order)
    if comm.rank != 0 and order.folder != mine.folder:
        with suppress(OSError):
            folder.rmdir()
    return order


def _begin(comm: MpiComm, job: Job, order: _Order, found_by: str) -> RunRecord | None:
    """Begin the record on rank 0, and return once it has begun; a rank that cannot begin ends all."""
    folder = Path(order.folder)
    record = None
    try:
        if comm.rank == 0:
            launcher = f"mpi, {comm.size} ranks ({found_by}), {comm.library}"
            record = RunRecord(job, order.plan, order.target_url, folder, launcher=launcher)
        comm.barrier()
        make_layout(folder)
    except (StokerError, OSError) as error:
        comm.abort(_told(error))
    return record


def _take_part(
    comm: MpiComm, order: _Order, watch: SignalWatch, record: RunRecord | None, progress: OnProgress | None
) -> Result:
    teller = None if record is None else Teller(order.plan, record, progress)

    def tell(told: Progress) -> None:
        if teller is not None:
            teller.tell({0: told})

    job = RankJob(order.plan, comm, order.target_url, Path(order.folder), lambda: bool(watch.received), tell)
    parts = _collect(comm, *run_rank(job))
    names = comm.gather(watch.name.encode()) or []
    result = b""
    if record is not None:
        name = next((name.decode() for name in names if name), "")
        status, reason = ("partial", f"stopped by {name}") if name else ("complete", "")
        result = msgspec.json.encode(record.finish(status, reason, parts))
    return msgspec.json.decode(comm.broadcast(result), type=Result)


def _collect(comm: MpiComm, report: RankReport, rows: Rows) -> list[Part]:
    """Return every rank's report and steps, in order, on rank 0; nothing elsewhere."""
    passed = comm.gather(msgspec.msgpack.encode(_Passed(report, rows.tobytes())))
    parts = []
    for data in passed or []:
        one = msgspec.msgpack.decode(data, type=_Passed)
        parts.append((one.report, np.frombuffer(one.rows, np.int64).reshape(-1, len(STEP_COLUMNS))))
    return parts
