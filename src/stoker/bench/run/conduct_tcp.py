"""Conducting a run whose ranks meet over TCP: one process of ours on each host, found by the environment, and no MPI.

The process with index 0 conducts, and keeps the record; each process starts its share of the ranks beside itself.
"""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stoker.bench.run.assemble import Part
from stoker.bench.run.hosts.collect import Collection
from stoker.bench.run.hosts.discover import Found, discover
from stoker.bench.run.hosts.meeting import Meeting
from stoker.bench.run.hosts.roll import first_names
from stoker.bench.run.launch_local import rank_environment
from stoker.bench.run.record import RunRecord
from stoker.bench.run.signals import SignalWatch
from stoker.bench.run.tcp_rank import Order, Passed
from stoker.bench.run.telling import OnProgress, Teller
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, UsageError
from stoker.core.host_series import Header, HostSeries
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import STEP_COLUMNS, Result

_POLL_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 10.0
_GIVE_SECONDS: Final = 30.0


def conduct_tcp(
    job: Job, plan: TrainingPlan, target_url: str, folder: Path, *, found: Found, progress: OnProgress | None
) -> Result:
    """Conduct the run, in the process with index 0, and return the saved result.

    Raises UsageError for another number of ranks than all processes start together, OSError when the port is taken.
    """
    require_ranks(plan, found)
    with SignalWatch() as signals:
        launcher = f"tcp, {plan.ranks} ranks of {found.members} processes ({found.found_by})"
        record = RunRecord(job, plan, target_url, folder, launcher=launcher)
        try:
            return _Conductor(record, plan, target_url, folder, found).run(signals, progress)
        finally:
            record.close()


def require_ranks(plan: TrainingPlan, found: Found) -> None:
    """Raise UsageError when the plan has another number of ranks than all processes start together."""
    if plan.ranks != found.ranks:
        raise UsageError(
            "the processes start another number of ranks than the run has",
            expected=f"{plan.ranks}",
            got=f"STOKER_RANKS={found.ranks}",
        )


class _Conductor:
    """The run as its conductor has it."""

    def __init__(self, record: RunRecord, plan: TrainingPlan, target_url: str, folder: Path, found: Found) -> None:
        self._record, self._plan, self._folder, self._found = record, plan, folder, found
        self._order = msgspec.json.encode(Order(plan, target_url))
        self._lost: list[str] = []

    def run(self, signals: SignalWatch, progress: OnProgress | None) -> Result:
        """Run to the end, however it comes, and return the saved result."""
        plan, place = self._plan, self._found.place
        collection = Collection(
            self._folder, plan.host_interval_seconds, plan.sample_hosts, samples_max=plan.host_samples_max
        )
        teller: list[Teller] = []
        meeting = Meeting(
            plan.ranks,
            deadline_seconds=plan.rank_deadline_seconds,
            on_lost=self._note_lost,
            on_progress=lambda told: teller[0].tell(told) if teller else None,
            task=self._order,
            port=place.port,
            token=place.token,
        )
        with closing(meeting):
            teller.append(Teller(plan, self._record, progress, roll=meeting.roll))
            with Ranks(self._found) as ranks:
                status, reason = self._wait(meeting, ranks, signals)
            parts, series = _parts(meeting), _series(meeting, collection.header)
        notes = [f"lost: {sentence}" for sentence in self._lost[1:]]
        return self._record.finish(status, reason, parts, notes, hosts=collection.finish(series))

    def _note_lost(self, sentence: str) -> None:
        self._lost.append(sentence)
        self._record.lost(sentence)

    def _wait(self, meeting: Meeting, ranks: "Ranks", signals: SignalWatch) -> tuple[str, str]:
        """Wait for the end; return the run's status and reason. A lost rank ends all others."""
        left_seconds, asked = self._found.join_seconds, False
        while not (meeting.roll.complete and meeting.roll.all_ended):
            meeting.wait(lambda here: bool(self._lost) or (here.roll.all_ended and here.roll.complete), _POLL_SECONDS)
            died = ranks.failure()
            if self._lost or died:
                reason = self._lost[0] if self._lost else died
                meeting.abort(reason)
                meeting.wait(lambda here: here.roll.all_ended, _STOP_SECONDS)
                return "failed", reason
            if not meeting.roll.complete:
                left_seconds -= _POLL_SECONDS
                if left_seconds <= 0 or signals.received:
                    return self._never_met(meeting, signals)
            if signals.received and not asked:
                asked = True
                meeting.ask_stop()
        return ("partial", f"stopped by {signals.name}") if signals.received else ("complete", "")

    def _never_met(self, meeting: Meeting, signals: SignalWatch) -> tuple[str, str]:
        missing = first_names([f"rank {rank}" for rank in meeting.roll.missing()])
        meeting.abort("not all ranks came")
        if signals.received:
            return "partial", f"stopped by {signals.name} while waiting for {missing}"
        return "failed", f"within {self._found.join_seconds:.0f} s there came no {missing}"


class Ranks:
    """This process's share of the ranks, as processes of their own; none is left at the end of the context."""

    def __init__(self, found: Found) -> None:
        mine = found.mine()
        self._processes = {
            rank: subprocess.Popen(  # noqa: S603 - our own interpreter and module, and four numbers
                [*_words(), str(rank), str(place), str(len(mine)), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                process_group=0,
                env=rank_environment(),
            )
            for place, rank in enumerate(mine)
        }

    def __enter__(self) -> "Ranks":
        return self

    def failure(self) -> str:
        """Return which of them ended badly, an empty text when none did."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        bad = [f"rank {rank} ended with exit code {code}" for rank, code in codes.items() if code]
        return first_names(bad)

    def wait(self) -> int:
        """Wait for all to end; return the worst exit code."""
        return max((abs(process.wait()) for process in self._processes.values()), default=EXIT_GOOD)

    def stop(self) -> None:
        """Ask all to stop at their next step."""
        for process in self._processes.values():
            process.terminate()

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _words() -> list[str]:
    return [sys.executable, "-P", "-m", "stoker.bench.run.tcp_rank"]


def serve_ranks() -> int:
    """Run this process's ranks, in a process that does not conduct; return the exit code."""
    found = discover()
    assert found is not None
    with SignalWatch() as signals, Ranks(found) as ranks:
        while (code := _ended(ranks)) is None:
            if signals.received:
                ranks.stop()
                ranks.wait()
                return 128 + signals.received
    return EXIT_FAILED if code else EXIT_GOOD


def _ended(ranks: Ranks) -> int | None:
    """Return the worst exit code once all have ended, None while any runs."""
    for process in ranks._processes.values():
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return None
    return ranks.wait()


def _passed(meeting: Meeting) -> dict[int, Passed]:
    return {rank: msgspec.msgpack.decode(data, type=Passed) for rank, data in sorted(meeting.given.items())}


def _parts(meeting: Meeting) -> list[Part]:
    return [
        (one.report, np.frombuffer(one.rows, np.int64).reshape(-1, len(STEP_COLUMNS)))
        for one in _passed(meeting).values()
    ]


def _series(meeting: Meeting, header: Header) -> list[HostSeries]:
    """Return what was seen of the other hosts, set to the conductor's time."""
    from datetime import datetime

    began_ns = round(datetime.fromisoformat(header.started_utc).timestamp() * 1e9)
    found = []
    for one in _passed(meeting).values():
        if one.series is not None:
            column = one.series.columns.get("at_us")
            if column:
                column[0] = (column[0] or 0) + (one.began_wall_ns - began_ns) // 1000
            found.append(one.series)
    return found
