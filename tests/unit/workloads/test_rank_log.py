"""A rank's log: what was written is what is read, whatever moment it was cut at."""

from pathlib import Path

import numpy as np
import pytest
from step_rows import rows_of

from stoker.bench.workloads.rank_log import RankLog, read_rank_log
from stoker.bench.workloads.reports import PhaseNote, RankStart, Snapshot, StoreFacts
from stoker.bench.workloads.steps import StepRecorder, pack, unpack
from stoker.core.errors import CorruptError
from stoker.core.ledger import Counters, Ledger

START = RankStart(rank=1, host="h", pid=7, host_rank=1, usable_cpus=2.0, store=StoreFacts(url="mem://x"))
SNAPSHOT = Snapshot(ledger=Ledger(requested_bytes=5), counters=Counters(process_read_bytes=5), cpu_seconds=0.5)


def write(path: Path, rows: np.ndarray, *, ended: bool = True) -> None:
    recorder = StepRecorder(1)
    log = RankLog(path, recorder, lambda: SNAPSHOT)
    log.event("rank_started", start=START)
    log.event("phase_started", phase=PhaseNote(1, 0))
    for row in rows.tolist():
        recorder.add(row)
    if ended:
        log.event("phase_ended", phase=PhaseNote(1, 0, digest="ab", complete=True), snapshot=SNAPSHOT)
        log.event("rank_ended", histograms={"step": "x"}, notes=["told"])
    else:
        log.flush()
    log.close()


def test_everything_comes_back(tmp_path: Path) -> None:
    rows = rows_of([(1.0, 2.0, 3.0)] * 1000)
    write(tmp_path / "log", rows)
    found = read_rank_log(tmp_path / "log")
    assert found is not None
    report, back = found
    assert (back == rows).all()
    assert (report.start, report.snapshot, report.finished) == (START, SNAPSHOT, True)
    assert report.phases == [PhaseNote(1, 0, digest="ab", complete=True)]
    assert (report.histograms, report.notes, report.error) == ({"step": "x"}, ["told"], "")


def test_an_unfinished_log_tells_what_it_has(tmp_path: Path) -> None:
    rows = rows_of([(1.0, 2.0, 3.0)] * 3)
    write(tmp_path / "log", rows, ended=False)
    found = read_rank_log(tmp_path / "log")
    assert found is not None
    report, back = found
    assert (back == rows).all()
    assert not report.finished
    assert [note.complete for note in report.phases] == [False]


def test_a_log_cut_anywhere_is_readable(tmp_path: Path) -> None:
    whole = tmp_path / "log"
    write(whole, rows_of([(1.0, 2.0, 3.0)] * 5))
    data = whole.read_bytes()
    first_line = data.index(b"\n") + 1
    for length in [*range(0, len(data), 17), *range(first_line - 3, first_line + 3), *range(len(data) - 50, len(data))]:
        whole.write_bytes(data[:length])
        found = read_rank_log(whole)
        assert (found is None) == (length < first_line - 1)


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"rank_ended"}\n',
        b'{"event":"rank_started","start":{"rank":"one"}}\n',
        b'{"event":"rank_started","start":5}\n',
    ],
)
def test_a_foreign_log_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "log").write_bytes(line * 2)
    with pytest.raises(CorruptError):
        read_rank_log(tmp_path / "log")


@pytest.mark.parametrize("text", ["AAAA", "no base64!", "A", 5, None, "A" * 127])
def test_what_is_not_packed_steps_is_refused(text: str) -> None:
    with pytest.raises(CorruptError):
        unpack(text, where="log")


def test_packed_steps_come_back() -> None:
    rows = rows_of([(1.0, 2.0, 3.0)] * 7)
    assert (unpack(pack(rows), where="log") == rows).all()
    assert unpack(pack(rows[:0]), where="log").shape == (0, rows.shape[1])


def test_the_recorder_grows_and_keeps_its_steps() -> None:
    rows = rows_of([(1.0, 2.0, 3.0)] * 70)
    recorder = StepRecorder(4)
    for row in rows.tolist():
        recorder.add(row)
    assert len(recorder) == 70
    assert (recorder.rows() == rows).all()
    assert (recorder.rows(60) == rows[60:]).all()


def test_a_failure_of_the_log_s_thread_surfaces_at_the_next_event(tmp_path: Path) -> None:
    class Full(Exception):
        pass

    def no_counts() -> Snapshot:
        raise Full("no counts")

    recorder = StepRecorder()
    log = RankLog(tmp_path / "log", recorder, no_counts)
    log.event("rank_started", start=START)
    recorder.add(rows_of([(1.0, 1.0, 1.0)])[0].tolist())
    log._thread.join(10)
    with pytest.raises(Full):
        log.event("rank_ended")
    log.close()
