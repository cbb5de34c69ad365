"""A rank's log: its steps and counts, written twice a second by a thread of its own.

The events, in order: `rank_started`, then for each epoch or evaluation `phase_started`, any number of `steps` and
`phase_ended`, for each checkpoint `checkpoint_started`, `checkpoint_seen` and `checkpoint_ended`, for each trial of a
KV cache `trial_started`, `trial_seen` and `trial_ended`, and of a collection of vectors `vectors_seen` with the first
answers to its queries; `rank_failed` with the reason, or `rank_ended`. Whatever moment the rank is killed at, what
stands there is all that `read_rank_log` needs. Steps are packed (`steps.pack`): a long run has millions, and as JSON
numbers they would take a hundred times longer to read back.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.workloads.reports import PhaseNote, RankReport, RankStart, Snapshot
from stoker.bench.workloads.steps import Rows, StepRecorder, joined, pack, unpack
from stoker.core.checkpoints import CheckpointNote
from stoker.core.errors import CorruptError
from stoker.core.events import EventLog, read_events
from stoker.core.kvcache import KvNote
from stoker.core.result import Reading
from stoker.core.vectors import Answer, VectorNote

FLUSH_SECONDS: Final = 0.5
_ROWS_A_LINE: Final = 4096


class RankLog:
    """Writes the log. `snapshot` is called on the log's thread; so is `on_tick`, after each flush."""

    def __init__(
        self,
        path: Path,
        recorder: StepRecorder,
        snapshot: Callable[[], Snapshot],
        *,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.failure: Exception | None = None
        self._log = EventLog(path)
        self._recorder = recorder
        self._snapshot = snapshot
        self._on_tick = on_tick
        self._flushed = 0
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-rank-log", daemon=True)
        self._thread.start()

    def event(self, name: str, **fields: Any) -> None:
        """Write an event after the steps recorded so far. Raises OSError, or what failed on the thread before."""
        self.flush()
        with self._writing:
            self._log.append(name, **fields)

    def flush(self) -> None:
        """Write the steps that are not written yet, and the counts if there are any. Raises as `event` does."""
        if self.failure is not None:
            raise self.failure
        with self._writing:
            rows = self._recorder.rows(self._flushed)
            for first in range(0, len(rows), _ROWS_A_LINE):
                part = rows[first : first + _ROWS_A_LINE]
                last = first + len(part) == len(rows)
                counts = {"snapshot": self._snapshot()} if last else {}
                self._log.append("steps", rows=pack(part), **counts)
                self._flushed += len(part)

    def _run(self) -> None:
        while not self._ending.wait(FLUSH_SECONDS):
            try:
                self.flush()
                if self._on_tick is not None:
                    self._on_tick()
            except Exception as error:  # the measuring thread raises it: nobody looks at this one
                self.failure = error
                return

    def close(self) -> None:
        """End the thread and close the file; closing twice is harmless."""
        self._ending.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._log.close()


def read_rank_log(path: Path) -> tuple[RankReport, Rows] | None:
    """Return what a rank's log tells, None when it was killed before its first line was whole.

    Raises CorruptError for a log that is not one of ours.
    """
    report: RankReport | None = None
    rows: list[Rows] = []
    try:
        for event in read_events(path):
            if report is None:
                report = RankReport(msgspec.convert(event["start"], RankStart))
            else:
                _take(report, event)
                if "rows" in event:
                    rows.append(unpack(event["rows"], where=str(path)))
    except (msgspec.ValidationError, LookupError, TypeError) as error:
        raise CorruptError("not a rank's log", where=str(path), got=str(error)) from error
    return None if report is None else (report, joined(rows))


def _take(report: RankReport, event: dict[str, Any]) -> None:
    if "snapshot" in event:
        report.snapshot = msgspec.convert(event["snapshot"], Snapshot)
    if "phase" in event:
        note = msgspec.convert(event["phase"], PhaseNote)
        if event["event"] == "phase_ended":
            report.phases.pop()  # it stood there since the phase began
        report.phases.append(note)
    if "checkpoint" in event:
        saved = msgspec.convert(event["checkpoint"], CheckpointNote)
        if report.checkpoints and not report.checkpoints[-1].complete:
            report.checkpoints.pop()  # it stood there since it began
        report.checkpoints.append(saved)
    if "vectors" in event:
        report.vectors = msgspec.convert(event["vectors"], VectorNote)
    report.answers.extend(msgspec.convert(event.get("answers", ()), list[Answer]))
    if "trial" in event:
        trial = msgspec.convert(event["trial"], KvNote)
        if report.trials and report.trials[-1].number == trial.number:
            report.trials.pop()  # it stood there since it began
        report.trials.append(trial)
    report.histograms.update(event.get("histograms", {}))
    report.notes.extend(event.get("notes", ()))
    if event.get("reading") is not None:
        report.reading = msgspec.convert(event["reading"], Reading)
    report.error = event.get("error", report.error)
    report.finished = event["event"] == "rank_ended"
