"""The run folder: its layout, the conductor's log, the columns of all steps and the result."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from stoker.bench.report.hosts import summarise
from stoker.bench.run.assemble import Part, RunEnd, RunStart, assemble
from stoker.bench.run.hosts.separation import record_separation
from stoker.bench.run.machine import machine_facts
from stoker.bench.run.vectors.closing import add_recall
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.reports import LOG_NAME
from stoker.bench.workloads.steps import column
from stoker.core import clock
from stoker.core.errors import AlreadyExistsError
from stoker.core.events import EventLog
from stoker.core.files import sync_folder
from stoker.core.host_series import HostSeries
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import (
    EVENTS_FILE,
    RANKS_FOLDER,
    RESULT_FILE,
    SERIES_FILE,
    STEP_COLUMNS,
    Result,
    save_result,
)
from stoker.core.seed import run_id

STARTED: Final = "run_started"
ENDED: Final = "run_ended"
RANK_LOST: Final = "rank_lost"


class RunRecord:
    """A run as its conductor keeps it."""

    def __init__(self, job: Job, plan: TrainingPlan, target_url: str, folder: Path, *, launcher: str) -> None:
        """Lay out the folder and write the first event.

        Raises AlreadyExistsError for a folder that holds a run already: runs are never mixed.
        """
        make_layout(folder)
        for name in (RESULT_FILE, EVENTS_FILE):
            if (folder / name).exists():
                raise AlreadyExistsError("folder holds a run already", where=str(folder), remedy="choose a new folder")
        self._folder = folder
        self._clock = clock.WallCheck()
        self.start = RunStart(run_id(), job, plan, clock.utc_text(), launcher, machine_facts(target_url))
        self._log = EventLog(folder / EVENTS_FILE)
        self._log.append(STARTED, run=self.start)
        self._log.sync()
        record_separation(target_url, folder)

    @property
    def elapsed_seconds(self) -> float:
        """Return the seconds since the run began."""
        return (clock.monotonic_ns() - self._clock.monotonic_start_ns) / 1e9

    def event(self, name: str, **fields: object) -> None:
        """Write an event to the conductor's log."""
        self._log.append(name, **fields)

    def lost(self, reason: str) -> None:
        """Write, durably, that a rank was lost: it may be the last that this process can do."""
        self._log.append(RANK_LOST, reason=reason)
        self._log.sync()

    def finish(
        self,
        status: str,
        reason: str,
        parts: Sequence[Part],
        notes: Sequence[str] = (),
        *,
        hosts: Sequence[HostSeries] = (),
    ) -> Result:
        """Put the result together, save it and the steps, end the log, and return the result."""
        end = RunEnd(
            status=status,
            reason=reason,
            ended_utc=clock.utc_text(),
            wall_seconds=self.elapsed_seconds,
            clock_step_seconds=self._clock.step_seconds(),
            notes=tuple(notes),
        )
        result = assemble(self.start, end, parts)
        result.hosts = summarise(hosts, ranks_by_host(parts))
        add_recall(self._folder, result, [report for report, _ in parts])
        save_series(self._folder, parts)
        save_result(self._folder, result)
        self._log.append(ENDED, end=end)
        self.close()
        return result

    def close(self) -> None:
        """Close the log; closing twice is harmless."""
        self._log.close()


def ranks_by_host(parts: Sequence[Part]) -> dict[str, int]:
    """Return how many ranks ran on each host, by its name."""
    return dict(Counter(report.start.host for report, _ in parts))


def make_layout(folder: Path) -> None:
    """Make the run folder and the one for its ranks, where they are missing."""
    (folder / RANKS_FOLDER).mkdir(parents=True, exist_ok=True)


def read_ranks(folder: Path, ranks: int) -> list[Part]:
    """Return what the logs of the ranks tell, in order; ranks without a readable beginning are left out."""
    parts = []
    for rank in range(ranks):
        path = folder / RANKS_FOLDER / LOG_NAME.format(rank=rank)
        found = read_rank_log(path) if path.exists() else None
        if found is not None:
            parts.append(found)
    return parts


def save_series(folder: Path, parts: Sequence[Part]) -> Path:
    """Write the steps of all ranks, whole or not at all: arrays `rank0000/<column>`, int64, shape (steps,)."""
    path = folder / SERIES_FILE
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    arrays: dict[str, Any] = {
        f"rank{report.start.rank:04d}/{name}": column(rows, name) for report, rows in parts for name in STEP_COLUMNS
    }
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return path
