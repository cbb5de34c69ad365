"""How a rank's loader reads gets into its log, whatever becomes of the rank."""

from pathlib import Path

import pytest
from rank_runs import make_dataset, plan, run

from stoker.bench.workloads.rank_log import read_rank_log
from stoker.core.errors import StokerError
from stoker.core.result import Reading
from stoker.core.units import KiB

PINNED = {"read_threads": 3, "queue_depth": 7, "request_bytes": 64 * KiB}


def check(reading: Reading | None) -> None:
    assert reading is not None
    assert (reading.readers, reading.queue_depth, reading.request_bytes) == (3, 7, 64 * KiB)
    assert reading.start == {"readers": 3, "queue_depth": 7, "request_bytes": 64 * KiB}
    assert reading.pinned == ("readers", "queue_depth", "request_bytes")
    assert reading.settled and reading.why


def logged(folder: Path) -> Reading | None:
    found = read_rank_log(folder / "ranks" / "rank-0000.jsonl")
    assert found is not None
    return found[0].reading


def test_a_rank_tells_it_in_its_report_and_its_log(tmp_path: Path) -> None:
    report, _ = run(plan(**PINNED), make_dataset(tmp_path), tmp_path)
    check(report.reading)
    assert report.reading is not None and report.reading.engine
    assert logged(tmp_path) == report.reading


def test_a_rank_killed_after_an_epoch_has_told_it(tmp_path: Path) -> None:
    run(plan(**PINNED), make_dataset(tmp_path), tmp_path)
    log = tmp_path / "ranks" / "rank-0000.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert b"rank_ended" in lines[-1]
    log.write_bytes(b"".join(lines[:-1]))
    check(logged(tmp_path))


def test_a_rank_that_fails_tells_it_all_the_same(tmp_path: Path) -> None:
    url = make_dataset(tmp_path)
    next((tmp_path / "data" / "train").rglob("*.npz")).write_bytes(b"short")
    with pytest.raises(StokerError):
        run(plan(**PINNED), url, tmp_path)
    check(logged(tmp_path))


def test_nothing_pinned_leaves_all_to_be_chosen(tmp_path: Path) -> None:
    report, _ = run(plan(read_threads=0), make_dataset(tmp_path), tmp_path)
    assert report.reading is not None
    assert report.reading.pinned == ()
    assert report.reading.readers >= 1


def test_a_store_that_reads_singly_has_no_engine(tmp_path: Path) -> None:
    url = make_dataset(tmp_path)
    report, _ = run(plan(), f"file://{url}?read_delay=1us", tmp_path)
    assert report.reading is not None
    assert (report.reading.engine, report.reading.queue_depth) == ("", 1)
