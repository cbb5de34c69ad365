"""What reports show of a search: page, terminal, and the files of the reference's programs, from a saved run."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stoker.bench.report.html import write_report
from stoker.bench.report.terminal import print_summary
from stoker.bench.report.vector_files import write_vector_files
from stoker.bench.rules import judge
from stoker.core.errors import CorruptError
from stoker.core.result import STEP_COLUMNS, save_result

sys.path.append(str(Path(__file__).parents[1] / "rules"))
from good_results import good_result
from good_searches import good_search


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of one rank with three requests, the last of which failed."""
    result = good_search(started_utc="2026-01-02T03:04:05.000000Z")
    save_result(tmp_path, result)
    rows = np.zeros((3, len(STEP_COLUMNS)), np.int64)
    column = {name: rows[:, at] for at, name in enumerate(STEP_COLUMNS)}
    column["request_ns"][:] = [10_000_000_000, 10_500_000_000, 11_000_000_000]
    column["end_ns"][:] = column["request_ns"] + [4_000_000, 8_000_000, 9_000_000]
    column["samples"][:] = [2, 2, 0]
    column["phase"][:] = 5
    np.savez(tmp_path / "series.npz", **{f"rank0000/{name}": values for name, values in column.items()})
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks/recall_hits_p0.jsonl").write_text('{"q":0,"ids":[1,2]}\n')
    return tmp_path


def test_page_and_terminal_tell_rate_recall_and_reads(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder, None).read_text()
    for words in ("200 /s", "95.00 %", "30 ms", "5,000 of 64 numbers", "M 16, efConstruction 200", "60 (240.00 KiB)"):
        assert words in page, words
    assert "Accelerator utilisation" not in page
    console = Console(record=True, width=200, file=io.StringIO())
    result = good_search()
    print_summary(result, judge(result), console)
    told = console.export_text()
    assert "200 /s, 2,000 in all" in told and "p99.9 40 ms" in told and "60 (240.00 KiB) a query" in told


def test_the_files_of_the_reference(folder: Path, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    leaf.mkdir()
    write_vector_files(folder, leaf)
    figures = json.loads((leaf / "statistics.json").read_text())
    assert (figures["throughput_qps"], figures["p99_latency_ms"], figures["p999_latency_ms"]) == (200.0, 30.0, 40.0)
    assert (figures["batch_count"], figures["failed_batches"], figures["database"]) == (2000, 0, "milvus")
    disk = figures["disk_io"]
    assert (disk["applicable"], disk["total_bytes_read"], disk["total_iops"]) == (True, 120_000 * 4096, 12_000.0)
    assert "per_query" not in json.loads((leaf / "summary.json").read_text())["recall"]
    verdict = json.loads((leaf / "result_verdict.json").read_text())
    assert (verdict["result"], verdict["valid"], verdict["flat_setup"]["ok"]) == ("valid", True, True)
    rows = list(csv.DictReader((leaf / "milvus_benchmark_p0.csv").read_text().splitlines()))
    assert [row["success"] for row in rows] == ["True", "True", "False"]
    assert float(rows[0]["batch_time_seconds"]) == 0.004 and float(rows[0]["avg_query_time_seconds"]) == 0.002
    assert float(rows[2]["timestamp"]) - float(rows[0]["timestamp"]) == pytest.approx(1.0)
    assert (leaf / "recall_hits_p0.jsonl").read_text() == '{"q":0,"ids":[1,2]}\n'


@pytest.mark.parametrize(
    ("changes", "result", "reason"),
    [
        ({"recall__mean": 0.0}, "invalid", "none of the exact neighbours"),
        ({"truth__ok": False, "truth__copied": 10}, "invalid", "10 of 5000"),
        ({"figures__failed_requests": 3}, "invalid", "3 of 2000 requests failed"),
        ({"recall__missing": 4}, "degraded", "4 queries were never answered"),
        ({"figures__reads_per_query": 0.0, "figures__device_reads": 0}, "valid", ""),
    ],
)
def test_the_verdict_of_the_tool(changes: dict[str, object], result: str, reason: str, tmp_path: Path) -> None:
    save_result(tmp_path, good_search(**changes))
    write_vector_files(tmp_path, tmp_path)
    verdict = json.loads((tmp_path / "result_verdict.json").read_text())
    assert verdict["result"] == result and reason in verdict["reason"]


def test_disks_that_nobody_counted_are_not_applicable(tmp_path: Path) -> None:
    save_result(tmp_path, good_search(figures__device_reads=None, figures__disk_reason="it is elsewhere"))
    write_vector_files(tmp_path, tmp_path)
    disk = json.loads((tmp_path / "statistics.json").read_text())["disk_io"]
    assert disk == {"applicable": False, "status": "not counted", "reason": "it is elsewhere"}


def test_another_workload_has_no_such_files(tmp_path: Path) -> None:
    save_result(tmp_path, good_result())
    with pytest.raises(CorruptError, match="not a run on a collection"):
        write_vector_files(tmp_path, tmp_path)
