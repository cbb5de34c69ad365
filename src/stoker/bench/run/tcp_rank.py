"""A rank that meets the others over TCP: `python -m stoker.bench.run.tcp_rank RANK HOST_RANK HOST_SIZE PARENT`.

Its place to meet comes in the environment, its task from the conductor. What it measured goes there as bytes, at its
end and, as far as it came, when the run is called off.
"""

import faulthandler
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from stoker.bench.run.hosts.clocks import Probe, offset_of
from stoker.bench.run.hosts.collect import new_header
from stoker.bench.run.hosts.discover import Found, discover
from stoker.bench.run.hosts.member import Attendance
from stoker.bench.run.hosts.sampler import LocalSampler
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.process import die_with_parent, keep_time_sharply
from stoker.bench.run.record import make_layout
from stoker.bench.workloads.comm import RunAborted
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.rank_work import run_job
from stoker.bench.workloads.reports import LOG_NAME, RankReport
from stoker.bench.workloads.steps import Rows
from stoker.bench.workloads.training import RankJob
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, StokerError
from stoker.core.host_series import ClockOffset, HostSeries
from stoker.core.plan import TrainingPlan
from stoker.core.result import RANKS_FOLDER

_LOST_SECONDS: Final = 5


class Order(msgspec.Struct, frozen=True):
    """What the conductor decides for all ranks."""

    plan: TrainingPlan
    target_url: str


class Passed(msgspec.Struct, frozen=True):
    """What a rank hands over: its report, its steps and, from one rank of each host, what was seen of the host."""

    report: RankReport
    rows: bytes
    series: HostSeries | None = None
    began_wall_ns: int = 0


class TcpComm:
    """The ranks of the run, meeting over TCP."""

    def __init__(self, attendance: Attendance, rank: int, size: int, host: tuple[int, int]) -> None:
        self._attendance, self.rank, self.size = attendance, rank, size
        self.host_rank, self.host_size = host

    def barrier(self, stop: bool = False) -> bool:
        """Wait for all ranks; return whether any asked to stop. Raises RunAborted when the run is called off."""
        return self._attendance.arrive(stop)


class _Rank:
    """One rank's process."""

    def __init__(self, found: Found, rank: int, host: tuple[int, int]) -> None:
        self._rank, self._host, self._stop = rank, host, False
        signal.signal(signal.SIGTERM, self._ask_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._attendance = Attendance(
            found.place, rank, local_name(), os.getpid(), on_lost=self._lost, connect_seconds=found.join_seconds
        )
        self._order = msgspec.json.decode(self._attendance.task, type=Order)
        self._began_wall_ns = 0

    def _ask_stop(self, _: int, __: FrameType | None) -> None:
        self._stop = True

    def _lost(self, _: str) -> None:
        signal.alarm(_LOST_SECONDS)  # the barrier raises now; whatever hangs elsewhere is ended by this

    def run(self) -> int:
        """Run to the end, hand over what was measured, and return the exit code."""
        with tempfile.TemporaryDirectory(prefix="stoker-rank-") as scratch:
            folder = Path(scratch)
            make_layout(folder)
            sampler = self._sampler()
            try:
                report, rows = self._run(folder)
            except RunAborted:
                return self._hand_over_log(folder, sampler)
            except Exception as error:
                traceback.print_exc()
                told = str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"
                self._hand_over_log(folder, sampler)
                self._attendance.fail(told)
                self._attendance.leave(EXIT_FAILED)
                return EXIT_FAILED
            self._hand_over(report, rows, sampler)
            self._attendance.leave(EXIT_GOOD)
        return EXIT_GOOD

    def _run(self, folder: Path) -> tuple[RankReport, Rows]:
        plan = self._order.plan
        comm = TcpComm(self._attendance, self._rank, plan.ranks, self._host)
        return run_job(RankJob(plan, comm, self._order.target_url, folder, lambda: self._stop, self._attendance.tell))

    def _sampler(self) -> LocalSampler | None:
        interval_seconds = self._order.plan.host_interval_seconds
        if self._host[0] or self._rank == 0 or interval_seconds <= 0:  # the conductor samples its own host
            return None
        header = new_header(interval_seconds, self._order.plan.host_samples_max)
        sampler = LocalSampler(header, source="tcp")
        self._began_wall_ns = round(_wall_of(header.started_utc) * 1e9)
        sampler.start()
        return sampler

    def _hand_over_log(self, folder: Path, sampler: LocalSampler | None) -> int:
        found = read_rank_log(folder / RANKS_FOLDER / LOG_NAME.format(rank=self._rank))
        if found is not None:
            self._hand_over(*found, sampler)
        return EXIT_FAILED

    def _hand_over(self, report: RankReport, rows: Rows, sampler: LocalSampler | None) -> None:
        series, began_ns = None, 0
        if sampler is not None:
            series, ahead = sampler.stop(), self._ahead()
            series.offset = ahead
            began_ns = self._began_wall_ns - round((ahead.seconds if ahead else 0.0) * 1e9)
        try:
            self._attendance.give(msgspec.msgpack.encode(Passed(report, rows.tobytes(), series, began_ns)))
        except OSError:
            return  # the conductor is gone

    def _ahead(self) -> ClockOffset | None:
        """Return how far our clock is ahead of the conductor's, from the signs of life."""
        offset = offset_of([Probe(each.sent_ns, each.theirs_ns, each.back_ns) for each in self._attendance.probes])
        return None if offset is None else ClockOffset(-offset.seconds, offset.error_seconds, offset.probes)


def _wall_of(utc: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(utc).timestamp()


def main(arguments: list[str]) -> int:
    """Run the rank that the words tell of; return its exit code."""
    rank, host_rank, host_size, parent = (int(word) for word in arguments)
    die_with_parent(parent)
    faulthandler.enable()
    keep_time_sharply()
    found = discover()
    if found is None:
        raise StokerError("no conductor is named in the environment")
    try:
        return _Rank(found, rank, (host_rank, host_size)).run()
    except StokerError as error:
        sys.stderr.write(f"stoker: rank {rank}: {error}\n")
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
