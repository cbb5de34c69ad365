"""A rank's report and log, whatever it does: begun with where it is, ended with the reason when it is broken off."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from stoker.bench.workloads.comm import Comm, RunAborted
from stoker.bench.workloads.counters import usable_cpus
from stoker.bench.workloads.rank_log import RankLog
from stoker.bench.workloads.reports import LOG_NAME, RankReport, RankStart, Snapshot, StoreFacts
from stoker.bench.workloads.steps import Rows, StepRecorder
from stoker.core.errors import StokerError
from stoker.core.result import RANKS_FOLDER


class RankRun(Protocol):
    """What one rank does from its start to its end."""

    def run(self) -> None:
        """Do it all."""

    def broken_off(self, error: BaseException) -> None:
        """End the log with the reason."""

    def ended(self) -> tuple[RankReport, Rows]:
        """End the log; return the report and the steps."""


def seen_through(rank: RankRun) -> tuple[RankReport, Rows]:
    """Run a rank to its end. Raises what `run` does, once the log tells why."""
    try:
        rank.run()
    except BaseException as error:
        rank.broken_off(error)
        raise
    return rank.ended()


class RankBook:
    """The report and the log of one rank."""

    def __init__(
        self,
        comm: Comm,
        folder: Path,
        store: StoreFacts,
        recorder: StepRecorder,
        snapshot: Callable[[], Snapshot],
        on_tick: Callable[[], None],
    ) -> None:
        """Begin the log in the run's `folder`; `on_tick` is called on its thread."""
        start = RankStart(
            rank=comm.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            host_rank=comm.host_rank,
            usable_cpus=usable_cpus(),
            store=store,
        )
        self.report = RankReport(start)
        path = folder / RANKS_FOLDER / LOG_NAME.format(rank=comm.rank)
        self.log = RankLog(path, recorder, snapshot, on_tick=on_tick)
        self.log.event("rank_started", start=start)
        self._snapshot = snapshot

    def broken_off(self, error: BaseException, notes: Sequence[str], **facts: Any) -> None:
        """End the log with the reason: an error of this rank's own, or that of another."""
        name = "rank_stopped" if isinstance(error, RunAborted) else "rank_failed"
        told = str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"
        self.report.error = "" if name == "rank_stopped" else told
        with suppress(Exception):  # the log itself may be what failed; the first error is the one to raise
            told_notes = [*notes, told] if name == "rank_stopped" else list(notes)
            self.log.event(name, error=self.report.error, notes=told_notes, snapshot=self._snapshot(), **facts)
        with suppress(OSError):
            self.log.close()
