"""Runs of two real ranks: what their result holds, and what becomes of it when a rank fails."""

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conducted import JOB, SPEC, all_gone, make_dataset, plan

from stoker.bench.run import launch_local
from stoker.bench.run.conduct import ProgressEvent, check_plan, conduct
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.core.errors import AlreadyExistsError, UsageError
from stoker.core.events import read_events
from stoker.core.histogram import Histogram
from stoker.core.plan import EvaluationPlan
from stoker.core.result import EVENTS_FILE, STEP_COLUMNS, load_result

OTHERS_SEGMENTS = ("stoker-test", "stoker-pages-", ".stoker-pages-", "mpich_shm_")
"""What tests that run beside these make there; a local run makes none of it."""


def shared_memory() -> set[str]:
    """Return the names of segments: files, for folders there are other tests' own."""
    with os.scandir("/dev/shm") as entries:
        return {
            entry.name
            for entry in entries
            if not entry.name.startswith(OTHERS_SEGMENTS) and entry.is_file(follow_symlinks=False)
        }


def test_a_complete_run_leaves_a_whole_result(dataset: str, tmp_path: Path) -> None:
    before = shared_memory()
    result = conduct(JOB, plan(epochs=2), dataset, tmp_path)
    assert (result.status, result.reason) == ("complete", "")
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert len({rank.pid for rank in result.ranks} | {os.getpid()}) == 3
    assert all_gone([rank.pid for rank in result.ranks], 0)
    assert [(e.epoch, e.steps, e.samples, e.complete, e.coverage_exact) for e in result.epochs] == [
        (1, 12, 48, True, True),
        (2, 12, 48, True, True),
    ]
    ledger = result.evidence.ledger
    assert ledger.delivered_bytes == ledger.wanted_bytes == 2 * SPEC.files * 4096
    assert ledger.from_store_bytes + ledger.from_cache_bytes == ledger.requested_bytes
    assert 0 < result.metrics.au_ratio <= 1
    assert result.metrics.steps == 22
    assert result.metrics.client_cpu_ratio > 0
    assert Histogram.decode(result.histograms["step"]).count == 2 * 24
    assert result.metrics.samples_per_second == pytest.approx(
        sum(rank.epochs[0].samples_per_second for rank in result.ranks), rel=0.9
    )
    assert msgspec.json.encode(load_result(tmp_path)) == msgspec.json.encode(result)
    left = shared_memory() - before
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:  # tests beside this one have semaphores for as long as they run
        time.sleep(0.2)
        left &= shared_memory()
    assert left == set()


def test_the_steps_of_all_ranks_are_saved_as_columns(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=1), dataset, tmp_path)
    with np.load(tmp_path / "series.npz", allow_pickle=False) as series:
        assert set(series.files) == {f"rank{rank:04d}/{name}" for rank in (0, 1) for name in STEP_COLUMNS}
        ends = [series[f"rank{rank:04d}/end_ns"] for rank in (0, 1)]
        begins = [series[f"rank{rank:04d}/request_ns"] for rank in (0, 1)]
    assert [len(end) for end in ends] == [12, 12]
    # The barrier: no rank begins a step before the other has done the one before.
    assert (begins[0][1:] >= ends[1][:-1] - 50_000_000).all()
    assert sum(rank.compute_seconds for rank in result.ranks) == pytest.approx(24 * 0.002)


def test_the_kernel_s_count_agrees_with_the_ledger(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=2), dataset, tmp_path)
    counters, ledger = result.evidence.counters, result.evidence.ledger
    if result.evidence.device == "" or counters.process_read_bytes is None:
        pytest.skip("temporary files lie on no block device")
    assert result.epochs[1].cached_before_ratio == 0.0
    pages_bytes = ledger.files_opened * 4096
    assert ledger.from_store_bytes <= counters.process_read_bytes <= ledger.from_store_bytes + pages_bytes
    assert counters.resident_before_bytes == 0
    assert counters.resident_probe_bytes == 2 * ledger.requested_bytes // 2


def test_an_evaluation_stands_beside_its_epoch(dataset: str, tmp_path: Path) -> None:
    evaluation = EvaluationPlan(SPEC, 4, plan().computation)
    result = conduct(JOB, plan(epochs=1, evaluation=evaluation), dataset, tmp_path)
    assert [(e.epoch, e.phase, e.steps) for e in result.epochs] == [(1, "train", 12), (1, "evaluation", 6)]
    assert result.epochs[1].coverage_exact is True
    assert result.metrics.steps == 11


def test_against_memory_the_accelerators_hardly_wait(dataset: str, tmp_path: Path) -> None:
    url = f"null://?template={Path(dataset) / 'train' / 'img_00_of_48.npz'}"
    best_ratio = 0.0
    for attempt in range(3):  # a busy machine wakes sleepers late, and that is not hidden
        result = conduct(JOB, plan(epochs=2, seconds=0.05, batch_size=4), url, tmp_path / str(attempt))
        best_ratio = max(best_ratio, result.metrics.au_ratio)
        if best_ratio >= 0.9:
            break
    assert best_ratio >= 0.9
    assert result.evidence.io_mode == "memory"


def test_samples_that_fill_no_step_are_told(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=1, batch_size=7), dataset, tmp_path)
    epoch = result.epochs[0]
    assert (epoch.steps, epoch.samples, epoch.dropped_samples, epoch.coverage_exact) == (3, 42, 6, True)


def test_ranks_without_a_barrier_run_for_themselves(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=0, duration_seconds=0.3, barrier=False), dataset, tmp_path)
    assert result.status == "complete"
    assert result.epochs[0].coverage_exact is True
    assert result.epochs[-1].epoch >= 1


def test_a_duration_ends_all_ranks_at_the_same_step(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=0, duration_seconds=0.5), dataset, tmp_path)
    assert result.status == "complete"
    last = [rank.epochs[-1] for rank in result.ranks]
    assert last[0].steps == last[1].steps
    assert last[0].epoch == last[1].epoch
    ledger = result.evidence.ledger
    assert ledger.wanted_bytes == ledger.delivered_bytes


def test_progress_is_told_to_the_caller(dataset: str, tmp_path: Path) -> None:
    told: list[ProgressEvent] = []
    conduct(JOB, plan(epochs=1, seconds=0.1), dataset, tmp_path, progress=told.append)
    assert told[-1].phase == "train"
    assert told[-1].steps == 12
    assert told[-1].limit_seconds >= told[-1].elapsed_seconds > 0
    assert "phase_seen" in [event["event"] for event in read_events(tmp_path / EVENTS_FILE)]


def test_a_killed_rank_is_named_and_ends_the_others_in_two_seconds(dataset: str, tmp_path: Path) -> None:
    killed: list[int] = []
    seconds: list[float] = []

    def shoot(event: ProgressEvent) -> None:
        log = tmp_path / "ranks" / "rank-0001.jsonl"
        found = read_rank_log(log) if log.exists() and not killed else None
        if event.step > 3 and found is not None and len(found[1]) > 12:  # an epoch of it is known
            seconds.append(event.elapsed_seconds)
            killed.append(found[0].start.pid)
            os.kill(killed[0], signal.SIGKILL)

    result = conduct(JOB, plan(epochs=1000, seconds=0.02), dataset, tmp_path, progress=shoot)
    assert result.status == "failed"
    assert result.reason.startswith(f"rank 1 (pid {killed[0]}) was killed by SIGKILL")
    assert result.wall_seconds - seconds[0] < 2.0
    assert result.metrics.steps > 0
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert load_result(tmp_path).status == "failed"


def test_a_rank_that_fails_tells_why(tmp_path: Path) -> None:
    url = make_dataset(tmp_path)
    damaged = Path(url) / "train" / "img_40_of_48.npz"
    damaged.write_bytes(b"no archive")
    result = conduct(JOB, plan(epochs=1, order="sequential"), url, tmp_path / "run")
    assert result.status == "failed"
    assert "img_40_of_48" in result.reason
    assert result.reason.startswith("rank 0 (pid ")
    assert "img_40_of_48" in result.ranks[0].error
    assert result.ranks[1].error == ""
    assert result.epochs[0].coverage_exact is None
    assert result.epochs[0].steps == 10
    assert (tmp_path / "run" / "ranks" / "rank-0000.stderr").read_text().startswith("Traceback")


def test_a_missing_dataset_is_a_failed_run(tmp_path: Path) -> None:
    result = conduct(JOB, plan(), str(tmp_path), tmp_path / "run")
    assert result.status == "failed"
    assert "no files" in result.reason


def test_a_store_that_never_answers_ends_with_the_duration(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_local, "OVERDUE_SECONDS", 0.2)
    monkeypatch.setattr(launch_local, "STOP_GRACE_SECONDS", 0.3)
    hanging = plan(epochs=0, duration_seconds=0.2, read_threads=1, batch_size=24)
    result = conduct(JOB, hanging, f"file://{dataset}?read_bytes_per_second=2KB", tmp_path)
    assert result.status == "partial"
    assert result.reason == "rank 0, rank 1 did not come to an end and was killed after the planned time"


def test_an_exception_of_the_watcher_leaves_no_rank_behind(dataset: str, tmp_path: Path) -> None:
    class Weary(Exception):
        pass

    def watcher(_: ProgressEvent) -> None:
        raise Weary

    with pytest.raises(Weary):
        conduct(JOB, plan(epochs=1000), dataset, tmp_path, progress=watcher)


def test_outside_the_main_thread_no_signal_is_watched(dataset: str, tmp_path: Path) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(conduct(JOB, plan(epochs=1), dataset, tmp_path).status))
    thread.start()
    thread.join(30)
    assert found == ["complete"]


def test_a_folder_holds_one_run_only(dataset: str, tmp_path: Path) -> None:
    conduct(JOB, plan(epochs=1, ranks=1), dataset, tmp_path)
    with pytest.raises(AlreadyExistsError):
        conduct(JOB, plan(epochs=1, ranks=1), dataset, tmp_path)


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"ranks": 0}, {"batch_size": 0}, {"epochs": -1}, {"launcher": "magic"}]
)
def test_a_plan_that_cannot_be_run_touches_nothing(changes: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        conduct(JOB, plan(**changes), str(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_that_ends_by_time_alone_passes() -> None:
    check_plan(plan(epochs=0, duration_seconds=1.0))
