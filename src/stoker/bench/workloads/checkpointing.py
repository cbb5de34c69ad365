"""The checkpointing workload as one rank sees it: so many saves, then so many loads, each after a pause and a barrier.

All ranks stop together: whoever finds a reason says so at a barrier. A save that was broken off is not committed, and
the next run that comes this way knows it for torn.
"""

from contextlib import closing
from typing import Final

from stoker.bench.workloads.checkpoint_work import CheckpointWork, plan_of
from stoker.bench.workloads.counters import Sources
from stoker.bench.workloads.meters import Meters
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.rank_book import RankBook, seen_through
from stoker.bench.workloads.reports import RankReport
from stoker.bench.workloads.source import store_facts
from stoker.bench.workloads.steps import LOAD as LOAD_PHASE
from stoker.bench.workloads.steps import SAVE as SAVE_PHASE
from stoker.bench.workloads.steps import Rows, StepRecorder
from stoker.bench.workloads.training import RankJob
from stoker.checkpoint.layout import checkpoint_id
from stoker.checkpoint.manifest import list_checkpoints
from stoker.core import clock
from stoker.core.checkpoints import SAVE, CheckpointNote
from stoker.core.errors import NotFoundError
from stoker.storage.api import Store
from stoker.storage.opening import open_store

_NAP_SECONDS: Final = 0.1
_SEEN_SECONDS: Final = 2.0


def run_checkpoints(job: RankJob) -> tuple[RankReport, Rows]:
    """Run one rank to its end and return what it measured; its log in the run folder tells the same.

    There are no steps. Raises what the store or the checkpoints raise, and RunAborted when another rank failed; the
    log ends with the reason then.
    """
    with closing(open_store(job.target_url, create=True)) as store:
        return seen_through(_Rank(job, store))


class _Rank:
    """One rank's run."""

    def __init__(self, job: RankJob, store: Store) -> None:
        self._job, self._what, self._store = job, plan_of(job.plan), store
        self._meters = Meters(Sources(store, host_wide=job.comm.host_rank == 0))
        self._recorder = StepRecorder(1)
        self._seen_ns = 0
        facts = store_facts(store, job.target_url)
        self._book = RankBook(job.comm, job.folder, facts, self._recorder, self._meters.snapshot, self._tick)
        self._report, self._log = self._book.report, self._book.log
        self._work = CheckpointWork(job.plan, job.comm, store, self._meters, job.stopped, self._note)

    def run(self) -> None:
        """Write, read, and tidy up."""
        what = self._what
        for number in range(1, what.writes + 1):
            if self._pause() or self._work.save(number, checkpoint_id(number)):
                return
        if what.writes and what.reads and self._work.settle():
            return
        names = self._names()
        for number in range(1, what.reads + 1):
            if self._pause() or self._work.load(number, names[(number - 1) % len(names)]):
                return
        if what.clean:
            self._work.clean()

    def _names(self) -> list[str]:
        """Return the checkpoints to read: those that this run wrote, else those that lie there whole."""
        if self._what.writes or not self._what.reads:
            return self._work.written
        if self._store.capabilities.io_mode == "null":
            return [checkpoint_id(number) for number in range(1, self._what.reads + 1)]
        found = [name for name, whole in list_checkpoints(self._store, self._what.folder) if whole]
        if not found:
            raise NotFoundError("no whole checkpoint is here", where=self._store.url, remedy="write some first")
        return found

    def _pause(self) -> bool:
        """Sleep as long as the plan says; return whether the run is to stop."""
        end_ns = clock.monotonic_ns() + round(self._what.interval_seconds * 1e9)
        while (left_ns := end_ns - clock.monotonic_ns()) > 0 and not self._job.stopped():
            clock.sleep(min(left_ns / 1e9, _NAP_SECONDS))
        if self._log.failure is not None:
            raise self._log.failure
        return False  # a wish to stop is told at the barrier, where all agree

    def _note(self, word: str, note: CheckpointNote) -> None:
        if word == "checkpoint_ended":
            self._report.checkpoints.append(note)
        self._log.event(word, checkpoint=note, snapshot=self._meters.snapshot())

    def _tick(self) -> None:
        """Tell how far this rank is, and log what was counted so far; called on the log's thread."""
        note, now_ns = self._work.current, clock.monotonic_ns()
        if note is None:
            return
        if now_ns - self._seen_ns > _SEEN_SECONDS * 1e9:
            self._seen_ns = now_ns
            self._log.event("checkpoint_seen", checkpoint=note, snapshot=self._meters.snapshot())
        saving = note.operation == SAVE
        seconds = (now_ns - note.started_ns) / 1e9
        self._job.on_progress(
            Progress(
                phase=SAVE_PHASE if saving else LOAD_PHASE,
                epoch=1,
                step=note.number,
                steps=self._what.writes if saving else self._what.reads,
                bytes_per_second=note.bytes / seconds if seconds > 0 else 0.0,
            )
        )

    def broken_off(self, error: BaseException) -> None:
        """End the log with the reason: an error of this rank's own, or that of another."""
        self._book.broken_off(error, self._work.remarks, histograms=self._work.histograms)

    def ended(self) -> tuple[RankReport, Rows]:
        """End the log and return the report, and no steps."""
        report = self._report
        report.snapshot, report.finished = self._meters.snapshot(), True
        report.histograms, report.notes = self._work.histograms, self._work.remarks
        self._log.event("rank_ended", histograms=report.histograms, notes=report.notes, snapshot=report.snapshot)
        self._log.close()
        return report, self._recorder.rows()
