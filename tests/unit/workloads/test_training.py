"""A rank that really runs, alone."""

from pathlib import Path

import numpy as np
import pytest
from rank_runs import SPEC, make_dataset, plan, run

from stoker.bench.workloads.metrics import exclusion_of, rank_epochs
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.bench.workloads.steps import EVALUATION, TRAIN, column
from stoker.bench.workloads.training import NOT_EVICTED
from stoker.core.errors import NotFoundError, StokerError, UsageError
from stoker.core.plan import DatasetSpec, EvaluationPlan, Spread
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.storage.opening import open_store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


def test_every_step_of_every_epoch_is_recorded(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=3), dataset, tmp_path)
    assert column(rows, "epoch").tolist() == [1] * 12 + [2] * 12 + [3] * 12
    assert column(rows, "step").tolist() == list(range(12)) * 3
    times = rows[:, 4:9]
    assert (np.diff(times, axis=1) >= 0).all()
    assert (times[1:, 0] >= times[:-1, 4]).all()
    assert (column(rows, "samples") == 2).all()
    assert (column(rows, "delivered_bytes") == 2 * 4096).all()
    assert report.finished
    assert [note.complete for note in report.phases] == [True] * 3


def test_each_epoch_reads_the_storage_anew(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=3), dataset, tmp_path)
    ledgers = [note.ledger for note in report.phases]
    assert ledgers[0] == ledgers[1] == ledgers[2]
    assert ledgers[0].files_opened == SPEC.files
    assert ledgers[0].requested_bytes > ledgers[0].delivered_bytes == SPEC.files * 4096
    assert ledgers[0].wanted_bytes == ledgers[0].delivered_bytes
    assert report.snapshot.ledger.requested_bytes == 3 * ledgers[0].requested_bytes
    assert column(rows, "requested_bytes").sum() == report.snapshot.ledger.requested_bytes


def test_each_epoch_visits_every_sample_once_in_an_order_of_its_own(dataset: str, tmp_path: Path) -> None:
    report, _ = run(plan(epochs=2), dataset, tmp_path)
    for note in report.phases:
        assert note.digest == note.expected_digest != ""
        assert note.expected_samples == SPEC.files


def test_the_dataset_s_pages_are_dropped_before_each_epoch(dataset: str, tmp_path: Path) -> None:
    report, _ = run(plan(epochs=2), dataset, tmp_path)
    if NOT_EVICTED in report.notes:
        pytest.skip("temporary files lie in memory")
    for note in report.phases:
        assert (note.resident_bytes, note.probed_bytes) == (0, report.phases[0].ledger.requested_bytes)
    assert report.snapshot.ledger.from_cache_bytes == 0


def test_without_eviction_the_second_epoch_is_seen_to_begin_cached(dataset: str, tmp_path: Path) -> None:
    report, _ = run(plan(epochs=2, evict=False), dataset, tmp_path)
    assert report.phases[1].resident_bytes == report.phases[1].probed_bytes
    assert NOT_EVICTED not in report.notes


def test_steps_max_ends_each_epoch(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=2, steps_max=5), dataset, tmp_path)
    assert column(rows, "step").tolist() == [0, 1, 2, 3, 4] * 2
    assert [note.complete for note in report.phases] == [True, True]
    assert report.snapshot.ledger.delivered_bytes == report.snapshot.ledger.wanted_bytes == 20 * 4096


def test_the_duration_ends_epochs_that_would_repeat_for_ever(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=0, duration_seconds=0.3, seconds=0.01), dataset, tmp_path)
    assert column(rows, "epoch").max() >= 2
    assert report.finished
    assert all(note.complete for note in report.phases[:-1])
    ledger = report.snapshot.ledger
    assert ledger.wanted_bytes == ledger.delivered_bytes == column(rows, "delivered_bytes").sum()
    assert ledger.requested_bytes >= column(rows, "requested_bytes").sum()


def test_a_wish_to_stop_ends_the_epoch_at_the_next_step(dataset: str, tmp_path: Path) -> None:
    asked = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 60

    report, rows = run(plan(epochs=100, evict=False), dataset, tmp_path, stopped=stopped)
    assert 0 < len(rows) < 100
    assert not report.phases[-1].complete
    assert report.finished


def test_evaluation_runs_after_the_epochs_that_were_planned(dataset: str, tmp_path: Path) -> None:
    validation = DatasetSpec(format="npz", files=8, record_length_bytes=1024, split="valid")
    store = open_store(dataset)
    try:
        generate(store, validation, GenerateOptions(files_before=SPEC.files))
    finally:
        store.close()
    evaluation = EvaluationPlan(validation, 4, Spread(parameters={"value": 0.002}), after_epoch=2, epochs_between=2)
    report, rows = run(plan(epochs=5, steps_max=3, evaluation=evaluation), dataset, tmp_path)
    passes = [(note.epoch, note.phase) for note in report.phases]
    assert passes == [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0), (4, 1), (5, 0)]
    evaluated = rows[column(rows, "phase") == EVALUATION]
    assert column(evaluated, "samples").tolist() == [4] * 4
    assert (column(evaluated, "delivered_bytes") == 4 * 1024).all()
    assert {epoch.phase for epoch in rank_epochs(rows, exclusion_of(plan()))} == {"train", "evaluation"}
    assert (column(rows, "phase") == TRAIN).sum() == 15


def test_the_log_tells_the_same_as_the_rank(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=2), dataset, tmp_path)
    found = read_rank_log(tmp_path / "ranks" / "rank-0000.jsonl")
    assert found is not None
    read, read_rows = found
    assert (read_rows == rows).all()
    assert read == report


def test_stalls_and_histograms_are_the_loader_s(dataset: str, tmp_path: Path) -> None:
    report, rows = run(plan(epochs=1), f"file://{dataset}?open_delay=0.02", tmp_path)
    waited = (column(rows, "ready_ns") - column(rows, "request_ns")).sum() / 1e9
    stalls = report.snapshot.stall_seconds
    assert max(stalls, key=lambda stage: stalls[stage]) == "open"
    assert sum(stalls.values()) == pytest.approx(waited, rel=0.05)
    assert {"open", "read", "decode", "step", "stall", "first_batch"} <= set(report.histograms)


def test_a_store_that_keeps_nothing_serves_the_planned_files(dataset: str, tmp_path: Path) -> None:
    template = Path(dataset) / "train" / "img_00_of_24.npz"
    report, rows = run(plan(epochs=2), f"null://?template={template}", tmp_path)
    assert len(rows) == 24
    assert report.start.store.kind == "null"
    assert report.phases[1].digest == report.phases[1].expected_digest


def test_what_a_failing_rank_measured_stands_in_its_log(tmp_path: Path) -> None:
    url = make_dataset(tmp_path)
    damaged = Path(url) / "train" / "img_20_of_24.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(StokerError, match="img_20_of_24"):
        run(plan(order="sequential"), url, tmp_path / "run")
    found = read_rank_log(tmp_path / "run" / "ranks" / "rank-0000.jsonl")
    assert found is not None
    report, rows = found
    assert "img_20_of_24" in report.error
    assert len(rows) == 10
    assert report.snapshot.ledger.samples_delivered == 20
    assert not report.finished


def test_a_missing_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        run(plan(), str(tmp_path), tmp_path / "run")


def test_another_dataset_than_planned_is_refused(dataset: str, tmp_path: Path) -> None:
    other = DatasetSpec(format="npy", files=24, record_length_bytes=4096)
    with pytest.raises(UsageError, match="format"):
        run(plan(dataset=other), dataset, tmp_path / "run")


def test_progress_is_told_while_the_rank_runs(dataset: str, tmp_path: Path) -> None:
    told = []
    run(plan(epochs=1, seconds=0.1), dataset, tmp_path, on_progress=told.append)
    assert told
    assert told[-1].steps == 12
    assert 0 < told[-1].step <= 12
    assert 0 < told[-1].au_ratio <= 1
