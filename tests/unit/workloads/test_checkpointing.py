"""One rank that saves and loads: what it counts, what it keeps, and what a broken-off save leaves."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run.checkpoint import NO_DATASET
from stoker.bench.workloads import checkpoint_work
from stoker.bench.workloads.checkpoint_metrics import combine, figures
from stoker.bench.workloads.comm import RunAborted, SoloComm
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.rank_work import run_job
from stoker.bench.workloads.reports import RankReport, RankStart, StoreFacts
from stoker.bench.workloads.training import RankJob
from stoker.checkpoint.layout import totals
from stoker.checkpoint.manifest import list_checkpoints
from stoker.core.checkpoints import LOAD, SAVE, CheckpointNote, CheckpointPlan, ModelShape
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.core.ledger import Counters
from stoker.core.plan import Spread, TrainingPlan
from stoker.storage.opening import open_store

SHAPE = ModelShape(2, 96, 64, 4, 2, 4099, zero_stage=3)
SIZE = totals(SHAPE, 1).size_bytes


def plan(*, ranks: int = 1, evict: bool = True, **changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {
        "shape": SHAPE,
        "writes": 3,
        "reads": 2,
        "interval_seconds": 0.0,
        "folder": "m",
        "buffers": 4,
        "buffer_bytes": 1 << 16,
        "verify_ratio": 1.0,
        **changes,
    }
    return TrainingPlan(
        "test", NO_DATASET, ranks, 0, Spread(), epochs=0, evict=evict, checkpoint=CheckpointPlan(**values)
    )


def run(planned: TrainingPlan, url: str, folder: Path, **how: Any) -> RankReport:
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    comm = how.pop("comm", SoloComm())
    report, rows = run_job(RankJob(planned, comm, url, folder, **how))
    assert not len(rows)
    return report


def listed(url: str) -> list[tuple[str, bool]]:
    store = open_store(url)
    try:
        return list_checkpoints(store, "m")
    finally:
        store.close()


def test_saves_and_loads_are_counted_to_the_byte(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    report = run(plan(), url, tmp_path / "run")
    told = [(note.operation, note.number, note.id, note.bytes, note.files) for note in report.checkpoints]
    assert told == [(SAVE, n, f"global_epoch1_step{n}", SIZE, 2) for n in (1, 2, 3)] + [
        (LOAD, n, f"global_epoch1_step{n}", SIZE, 2) for n in (1, 2)
    ]
    assert all(note.complete and note.seconds > 0 and note.all_seconds >= note.seconds for note in report.checkpoints)
    assert all(sum(note.stage_seconds.values()) == pytest.approx(note.seconds) for note in report.checkpoints)
    ledger = report.snapshot.ledger
    assert (ledger.written_bytes, ledger.files_written) == (3 * SIZE, 6)
    assert (ledger.requested_bytes, ledger.delivered_bytes, ledger.files_opened) == (2 * SIZE, 2 * SIZE, 4)
    assert [note.ledger.written_bytes for note in report.checkpoints] == [SIZE] * 3 + [0, 0]
    assert [note.verified_bytes for note in report.checkpoints] == [0] * 3 + [SIZE] * 2
    assert {"checkpoint_write", "checkpoint_commit", "read", "verify"} <= set(report.histograms)
    assert set(report.snapshot.stall_seconds) >= {"checkpoint_write", "checkpoint_commit", "read"}
    assert report.finished
    logged = read_rank_log(tmp_path / "run/ranks/rank-0000.jsonl")
    assert logged is not None
    assert logged[0].checkpoints == report.checkpoints
    assert logged[0].snapshot.ledger == ledger


def test_a_synced_save_leaves_nothing_unwritten(tmp_path: Path) -> None:
    notes = run(plan(reads=0), f"file://{tmp_path}/t?fsync=full", tmp_path / "run").checkpoints
    if notes[0].dirty_bytes is None:
        pytest.skip("this kernel does not tell what is dirty")
    assert [note.dirty_bytes for note in notes] == [0, 0, 0]
    unsynced = run(plan(reads=0, writes=1), f"file://{tmp_path}/u?fsync=none", tmp_path / "run2").checkpoints
    assert (unsynced[0].dirty_bytes or 0) > 0


def test_only_so_many_are_kept_and_read_again(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    report = run(plan(writes=5, reads=3, keep=2), url, tmp_path / "run")
    assert listed(url) == [("global_epoch1_step4", True), ("global_epoch1_step5", True)]
    assert [note.id[-1] for note in report.checkpoints if note.operation == LOAD] == ["4", "5", "4"]


def test_a_clean_run_leaves_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    run(plan(clean=True), url, tmp_path / "run")
    assert listed(url) == []
    assert not list((tmp_path / "t").iterdir())


class _Together:
    """Two ranks as two threads."""

    size = host_size = 2

    def __init__(self, rank: int, barrier: threading.Barrier) -> None:
        self.rank = self.host_rank = rank
        self._barrier = barrier

    def barrier(self, stop: bool = False) -> bool:
        self._barrier.wait(timeout=60)
        return stop


def test_no_rank_loads_what_is_not_committed_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the commit takes, and without a pause between the phases."""
    real = checkpoint_work.commit

    def slow(*words: Any, **how: Any) -> Any:
        time.sleep(0.3)
        return real(*words, **how)

    monkeypatch.setattr(checkpoint_work, "commit", slow)
    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(
                run,
                plan(ranks=2, writes=1, reads=1),
                f"file://{tmp_path}/t",
                tmp_path / "run",
                comm=_Together(n, barrier),
            )
            for n in range(2)
        ]
        reports = [rank.result(timeout=60) for rank in ranks]
    assert all([note.complete for note in report.checkpoints] == [True, True] for report in reports)


def test_one_run_writes_and_another_reads(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    run(plan(reads=0), url, tmp_path / "write")
    report = run(plan(writes=0, reads=4, content_seed=77), url, tmp_path / "read")
    assert [note.id[-1] for note in report.checkpoints] == ["1", "2", "3", "1"]
    assert all(note.verified_bytes == SIZE for note in report.checkpoints)


def test_nothing_or_another_model_to_read_is_told(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    with pytest.raises(NotFoundError, match="no whole checkpoint"):
        run(plan(writes=0), url, tmp_path / "none")
    run(plan(reads=0), url, tmp_path / "write")
    other = ModelShape(3, 96, 64, 4, 2, 4099, zero_stage=3)
    with pytest.raises(UsageError, match="another model"):
        run(plan(writes=0, shape=other), url, tmp_path / "other")
    (tmp_path / "t/m/global_epoch1_step2/stoker-checkpoint.json").unlink()
    report = run(plan(writes=0, reads=2), url, tmp_path / "torn")
    assert [note.id[-1] for note in report.checkpoints] == ["1", "3"]


def test_other_bytes_fail_the_rank_with_the_place(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    run(plan(reads=0), url, tmp_path / "write")
    file = tmp_path / "t/m/global_epoch1_step1/zero_pp_rank_0_mp_rank_0_optim_states.pt"
    data = bytearray(file.read_bytes())
    data[1234] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptError, match="byte 1234"):
        run(plan(writes=0), url, tmp_path / "read")
    logged = read_rank_log(tmp_path / "read/ranks/rank-0000.jsonl")
    assert logged is not None and "byte 1234" in logged[0].error
    assert not logged[0].checkpoints[0].complete


def test_a_stop_in_the_middle_of_a_save_commits_nothing(tmp_path: Path) -> None:
    url, looks = f"file://{tmp_path}/t", iter(range(10**6))
    report = run(plan(), url, tmp_path / "run", stopped=lambda: next(looks) > 25)
    assert not all(note.complete for note in report.checkpoints)
    assert len(report.checkpoints) < 5
    whole = [name for name, is_whole in listed(url) if is_whole]
    assert whole == [note.id for note in report.checkpoints if note.complete]


def test_null_is_the_ceiling_and_says_so(tmp_path: Path) -> None:
    report = run(plan(), "null://", tmp_path / "run")
    assert [note.complete for note in report.checkpoints] == [True] * 5
    assert report.snapshot.ledger.written_bytes == 3 * SIZE
    assert any("null:// keeps nothing" in note for note in report.notes)
    assert not any(note.verified_bytes for note in report.checkpoints)


class Called(SoloComm):
    """A run that is called off at its n-th barrier."""

    def __init__(self, barriers: int) -> None:
        self.left = barriers

    def barrier(self, stop: bool = False) -> bool:
        self.left -= 1
        if self.left < 0:
            raise RunAborted("the run was called off")
        return stop


@pytest.mark.parametrize("barriers", range(6))
def test_a_run_called_off_at_any_barrier_leaves_only_whole_or_torn_ones(barriers: int, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    with pytest.raises(RunAborted):
        run(plan(writes=3, reads=0), url, tmp_path / "run", comm=Called(barriers))
    found = listed(url)
    assert sum(whole for _, whole in found) == barriers // 2
    logged = read_rank_log(tmp_path / "run/ranks/rank-0000.jsonl")
    assert logged is not None and not logged[0].finished and not logged[0].error


class Together:
    """Ranks as threads, which meet at a real barrier."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)
        self._votes = [False] * size

    def comm(self, rank: int, size: int) -> Any:
        outer = self

        class Comm(SoloComm):
            def barrier(self, stop: bool = False) -> bool:
                outer._votes[rank] = stop
                outer._barrier.wait(30)
                found = any(outer._votes)
                outer._barrier.wait(30)
                return found

        comm = Comm()
        comm.rank = comm.host_rank = rank
        comm.size = comm.host_size = size
        return comm


def test_four_ranks_write_one_checkpoint_and_read_each_its_own(tmp_path: Path) -> None:
    url, together = f"file://{tmp_path}/t", Together(4)
    reports: dict[int, RankReport] = {}

    def work(rank: int) -> None:
        reports[rank] = run(plan(ranks=4), url, tmp_path / "run", comm=together.comm(rank, 4))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    every = [reports[rank] for rank in range(4)]
    operations = combine(every, ranks=4)
    sums = totals(SHAPE, 4)
    assert [(each.operation, each.bytes, each.files, each.complete) for each in operations] == [
        (SAVE, sums.size_bytes, 8, True)
    ] * 3 + [(LOAD, sums.size_bytes, 8, True)] * 2
    files = list((tmp_path / "t/m/global_epoch1_step1").glob("*.pt"))
    assert len({file.read_bytes()[:4096] for file in files}) == 8


def note(rank: int, seconds: float, **changes: Any) -> tuple[RankReport, CheckpointNote]:
    values = {"bytes": 100, "files": 1, "started_utc": "2026-01-01T00:00:00.000000Z", "complete": True, **changes}
    told = CheckpointNote(SAVE, 1, "global_epoch1_step1", seconds=seconds, all_seconds=seconds + 0.5, **values)
    report = RankReport(RankStart(rank, f"host{rank // 2}", 1, rank % 2, 1.0, StoreFacts()), checkpoints=[told])
    return report, told


def test_both_clocks_and_the_slowest_rank_are_told() -> None:
    reports = [note(0, 2.0)[0], note(1, 5.0)[0], note(2, 4.0)[0], note(3, 1.0)[0]]
    (found,) = combine(reports, ranks=4)
    assert (found.seconds, found.seconds_compatible, found.seconds_mean, found.all_seconds) == (5.0, 2.0, 3.0, 2.5)
    assert (found.bytes_per_second, found.bytes_per_second_compatible) == (80.0, 200.0)
    assert (found.slowest_rank, found.slowest_host, found.complete) == (1, "host0", True)
    assert not combine(reports[:3], ranks=4)[0].complete
    reports[2].checkpoints[0].complete = False
    assert not combine(reports, ranks=4)[0].complete


def test_what_a_device_wrote_counts_once_a_host() -> None:
    reports = [
        note(rank, 1.0, counters=Counters(device_write_bytes=50 if rank % 2 == 0 else None))[0] for rank in range(4)
    ]
    assert combine(reports, ranks=4)[0].device_written_bytes == 100
    reports[2].checkpoints[0].counters = Counters()
    assert combine(reports, ranks=4)[0].device_written_bytes is None


def test_figures_leave_out_what_was_cut_short_and_tell_the_times() -> None:
    done = combine([note(0, 2.0)[0]], ranks=1)
    cut = combine([note(0, 9.0, complete=False)[0]], ranks=1)
    found = figures([*done, *cut], size_bytes=100, files=1)
    assert found.save is not None and found.load is None
    assert (found.save.count, found.save.seconds, found.save.bytes_per_second) == (1, 2.0, 50.0)
    assert found.whole_seconds == 2.5
    assert found.last_save_utc == found.last_utc == "2026-01-01T00:00:02.500000Z"
    assert figures(cut, size_bytes=100, files=1).save is None
