"""Conducting a run whose ranks are MPI's: rank 0 decides and keeps the record.

The other ranks either call the same, or `follow`: then rank 0 alone reads the words, makes the data and tells what came
out, so that a mistake is told once and no rank waits for one that has given up.

Nothing is assumed of a shared file system but for recovery: each rank writes its log below the run's folder on its own
host, and what it measured goes to rank 0 as bytes.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import msgspec
import numpy as np

from stoker.bench.run.assemble import Part
from stoker.bench.run.credentials import apply_credentials
from stoker.bench.run.hosts.alike import Seen, compare, look
from stoker.bench.run.hosts.control import tell_folder, tell_progress
from stoker.bench.run.hosts.over_mpi import MpiCollection
from stoker.bench.run.hosts.start import started_with
from stoker.bench.run.hosts.watch import MpiWatch
from stoker.bench.run.launch_mpi import MpiComm, world
from stoker.bench.run.process import keep_time_sharply
from stoker.bench.run.record import RunRecord, make_layout
from stoker.bench.run.recover import recover
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.telling import OnProgress, ProgressEvent, Teller
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.rank_work import run_job
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob
from stoker.core.errors import EXIT_GOOD, MissingExtraError, PreflightError, StokerError, UsageError
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import STEP_COLUMNS, Result, save_result

_STORE_VARIABLES: Final = ("AWS_", "AZURE_", "GOOGLE_")


class _Order(msgspec.Struct, frozen=True, tag="run"):
    """What rank 0 decides for all; `variables` are its stores' settings, for the ranks that lack them."""

    plan: TrainingPlan
    target_url: str
    folder: str
    variables: dict[str, str]


class _End(msgspec.Struct, frozen=True, tag="end"):
    """Rank 0 needs the others no more."""

    exit_code: int


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
    comm = world()
    variables = {name: value for name, value in os.environ.items() if name.startswith(_STORE_VARIABLES)}
    mine = _Order(plan, target_url, str(folder.absolute()), variables)
    order = _agree(comm, mine)
    assert isinstance(order, _Order)
    if order.folder != mine.folder:  # one that this rank made for itself
        with suppress(OSError):
            folder.rmdir()
    if order.plan.ranks != comm.size:
        raise UsageError(
            "MPI started another number of ranks than the plan has",
            expected=f"{order.plan.ranks} ranks",
            got=f"{comm.size}",
            remedy=f"start it with mpirun -n {order.plan.ranks}",
        )
    reason, notes = _alike(comm, order)
    if reason:
        raise PreflightError(reason, remedy="install one release everywhere, and mount one target")
    return _obey(comm, job, order, (found_by, notes), progress)


def _alike(comm: MpiComm, order: _Order) -> tuple[str, list[str]]:
    """Return, on every rank, why the hosts cannot run together, and on rank 0 what is to be noted of them."""
    mine = msgspec.json.encode(look(order.target_url)) if comm.host_rank == 0 else b""
    passed = comm.gather(mine)
    reason, notes = compare([msgspec.json.decode(data, type=Seen) for data in passed if data]) if passed else ("", [])
    return comm.broadcast(reason.encode()).decode(), notes


def meet() -> None:
    """Let the ranks that `follow` meet rank 0, which calls this before it begins; without mpi4py there are none."""
    with suppress(MissingExtraError):
        world()


def follow() -> int:
    """Take part, on a rank other than 0, in every run that rank 0 conducts; return the exit code it dismisses us with.

    Signals are for rank 0, which gets them too, to obey. Raises UsageError when the MPI library was not started by the
    launcher. Without mpi4py there is nothing to follow: rank 0 tells what is missing.
    """
    with SignalWatch():
        try:
            comm = world()
        except MissingExtraError:
            return EXIT_GOOD
        if comm.rank == 0:
            raise UsageError(
                "the MPI library does not know its launcher",
                got=f"rank 0 of {comm.size} in a process that the launcher calls another",
                remedy=f"start it with the mpiexec of {comm.library}",
            )
        while True:
            order = _agree(comm, None)
            if isinstance(order, _End):
                return order.exit_code
            if order.plan.ranks == comm.size and not _alike(comm, order)[0]:
                _obey(comm, Job("follow"), order, ("", []), None)


def dismiss(exit_code: int) -> None:
    """Let the ranks that `follow` end with `exit_code`. For rank 0, when it has done all."""
    with suppress(MissingExtraError), SignalWatch():
        _agree(world(), _End(exit_code))


def _agree(comm: MpiComm, mine: _Order | _End | None) -> _Order | _End:
    """Return what rank 0 passed, on every rank; the wait for it may be long, and is spent napping."""
    comm.barrier()
    order = msgspec.json.decode(comm.broadcast(msgspec.json.encode(mine)), type=_Order | _End)
    if isinstance(order, _Order):
        apply_credentials(order.variables)
    return order


def _obey(comm: MpiComm, job: Job, order: _Order, known: tuple[str, list[str]], progress: OnProgress | None) -> Result:
    """Run this rank's part; `known` is by what MPI was found, and what to note of the hosts.

    An error here ends all ranks, after a failed result was saved where that is possible.
    """
    keep_time_sharply()
    with SignalWatch() as signals:
        record = _begin(comm, job, order, known[0])
        watch = MpiWatch(comm, order.plan.rank_deadline_seconds, lambda reason: _lost(comm, order, record, reason))
        watch.notes += known[1]
        try:
            return _take_part(comm, order, signals, record, Watched(watch, _relayed(progress)))
        except BaseException as error:
            watch.fail(_told(error))
            with suppress(StokerError, OSError):
                save_result(Path(order.folder), recover(Path(order.folder)))
            comm.abort(_told(error))
        finally:
            watch.close()


def _relayed(progress: OnProgress | None) -> OnProgress:
    """Return a callback that tells who started the ranks, as well, how far the run is."""

    def tell(event: ProgressEvent) -> None:
        tell_progress(event)
        if progress is not None:
            progress(event)

    return tell


def _lost(comm: MpiComm, order: _Order, record: RunRecord | None, reason: str) -> NoReturn:
    """End all ranks because one was lost; rank 0 keeps first what is known of the run. On the watch's thread."""
    if record is not None:
        record.lost(reason)
        with suppress(StokerError, OSError):
            save_result(Path(order.folder), recover(Path(order.folder)))
    comm.abort_surely(reason)


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"


def _begin(comm: MpiComm, job: Job, order: _Order, found_by: str) -> RunRecord | None:
    """Begin the record on rank 0, and return once it has begun; a rank that cannot begin ends all."""
    folder = Path(order.folder)
    record = None
    try:
        if comm.rank == 0:
            launcher = f"mpi, {comm.size} ranks ({found_by}), {comm.library}{started_with(os.environ)}"
            record = RunRecord(job, order.plan, order.target_url, folder, launcher=launcher)
            tell_folder(folder)
        comm.barrier()
        make_layout(folder)
    except (StokerError, OSError) as error:
        comm.abort(_told(error))
    return record


class Watched(NamedTuple):
    """Who watches the ranks, and who is told how far they are."""

    watch: MpiWatch
    progress: OnProgress | None


def _take_part(
    comm: MpiComm, order: _Order, signals: SignalWatch, record: RunRecord | None, watched: Watched
) -> Result:
    watch = watched.watch
    teller = None if record is None else Teller(order.plan, record, watched.progress, roll=watch.roll)

    def tell(told: Progress) -> None:
        watch.tell(told)
        if teller is not None:
            teller.tell({0: told, **watch.told()})

    plan, folder = order.plan, Path(order.folder)
    collection = MpiCollection(
        comm, folder, plan.host_interval_seconds, plan.sample_hosts, samples_max=plan.host_samples_max
    )
    job = RankJob(plan, comm, order.target_url, folder, lambda: bool(signals.received), tell)
    told = run_job(job)
    watch.finished()
    hosts = collection.finish()
    parts = _collect(comm, *told)
    if teller is not None:
        watch.await_finished()
        teller.close()
    names = comm.gather(signals.name.encode()) or []
    result = b""
    if record is not None:
        name = next((name.decode() for name in names if name), "")
        status, reason = ("partial", f"stopped by {name}") if name else ("complete", "")
        result = msgspec.json.encode(record.finish(status, reason, parts, watch.notes, hosts=hosts))
    return msgspec.json.decode(comm.broadcast(result), type=Result)


def _collect(comm: MpiComm, report: RankReport, rows: Rows) -> list[Part]:
    """Return every rank's report and steps, in order, on rank 0; nothing elsewhere."""
    passed = comm.gather(msgspec.msgpack.encode(_Passed(report, rows.tobytes())))
    parts = []
    for data in passed or []:
        one = msgspec.msgpack.decode(data, type=_Passed)
        parts.append((one.report, np.frombuffer(one.rows, np.int64).reshape(-1, len(STEP_COLUMNS))))
    return parts
