"""The page, the terminal and DLIO's files of a run of checkpoints; looked at in a browser where there is one."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import runs
from rich.console import Console
from test_html import Page

from stoker.bench.report.dlio_files import write_dlio_files
from stoker.bench.report.html import write_report
from stoker.bench.report.terminal import print_summary, summary_dict
from stoker.bench.rules import judge
from stoker.core.checkpoints import CheckpointNote
from stoker.core.result import Result, save_result

sys.path.append(str(Path(__file__).parents[1] / "rules"))
from good_saves import SIZE, good_saves

GIB = 1 << 30


def saved(folder: Path, **changes: Any) -> Result:
    """Save a run of checkpoints whose ranks tell what they did."""
    result = good_saves(**changes)
    result.started_utc, result.ended_utc = "2026-01-01T00:00:50.000000Z", "2026-01-01T00:03:00.000000Z"
    result.histograms = runs.histograms(1)
    for rank in result.ranks:
        rank.checkpoints = [
            CheckpointNote(
                each.operation,
                each.number,
                each.id,
                each.started_utc,
                seconds=1.0 if rank.rank else 0.98,
                bytes=SIZE // 2,
                files=2,
                complete=each.complete,
            )
            for each in result.checkpoints
        ]
    folder.mkdir(exist_ok=True)
    runs.save_series(folder / "series.npz", {})
    save_result(folder, result)
    return result


def test_the_page_shows_every_operation_and_no_utilisation(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    text = write_report(tmp_path / "run").read_text()
    page = Page(text)
    assert not page.open, "every element is closed"
    for words in (
        "save 1",
        "save 2",
        "load 1",
        "load 2",
        "global_epoch1_step2",
        "Rate of saves and loads",
        "by rank 0",
    ):
        assert words in text, words
    assert "accelerator utilisation<br>" not in text
    assert '<section id="checkpoints">' in text
    assert "1.02 GiB/s" in text, "the compatible rate"


def test_a_training_run_has_no_section_of_checkpoints(tmp_path: Path) -> None:
    runs.save_run(tmp_path, runs.realistic_result())
    text = write_report(tmp_path).read_text()
    assert '<section id="checkpoints">' not in text
    assert "accelerator utilisation<br>" in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    saved(tmp_path / "run", save1__id=evil, save1__slowest_host=evil, load1__operation="load")
    text = write_report(tmp_path / "run").read_text()
    assert "<script>alert(1)" not in text
    assert "\x1b" not in text


def test_the_terminal_tells_both_clocks_and_the_stages(tmp_path: Path) -> None:
    result = saved(tmp_path / "run")
    out = io.StringIO()
    print_summary(result, judge(result), Console(file=out, width=200))
    text = out.getvalue()
    assert text.startswith("YES")
    assert "save       1.00 s" in text and "load       1.00 s" in text
    assert "1.02 GiB/s by rank 0's clock" in text
    assert "5 % waiting for content, 85 % writing, 10 % making durable" in text
    nothing = saved(tmp_path / "none", checkpoints=[], checkpointing=None, status="partial")
    out = io.StringIO()
    print_summary(nothing, judge(nothing), Console(file=out, width=200))
    assert "none was seen through" in out.getvalue()


def test_the_page_of_checkpoints_alone_tells_nothing_of_epochs_or_utilisation(tmp_path: Path) -> None:
    saved(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert 'id="checkpoints"' in page
    assert "#epochs" not in page and "No epoch" not in page
    assert '<th scope="row">AU</th>' not in page and '<th scope="row">stall</th>' in page


def test_json_has_the_figures(tmp_path: Path) -> None:
    result = saved(tmp_path / "run")
    document = json.loads(json.dumps(summary_dict(result, judge(result))))
    assert document["checkpointing"]["save"]["bytes_per_second"] == SIZE
    assert [each["operation"] for each in document["checkpoints"]] == ["save", "save", "load", "load"]


@pytest.mark.parametrize(("metrics", "seconds"), [("correct", 1.0), ("compatible", 0.98)])
def test_dlio_files_carry_the_checkpoint_keys(metrics: str, seconds: float, tmp_path: Path) -> None:
    saved(tmp_path / "run")
    write_dlio_files(tmp_path / "run", tmp_path / "out", metrics=metrics)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(
        [
            "summary.json",
            "dlio.log",
            *(f"{rank}_{kind}.json" for rank in (0, 1) for kind in ("output", "per_epoch_stats")),
        ]
    )
    metric = json.loads((tmp_path / "out/summary.json").read_text())["metric"]
    assert set(metric) == {
        *(
            f"{verb}_checkpoint_{name}"
            for verb in ("save", "load")
            for name in (
                "io_mean_GB_per_second",
                "io_stdev_GB_per_second",
                "duration_mean_seconds",
                "duration_stdev_seconds",
            )
        ),
        "checkpoint_size_GB",
    }
    assert metric["checkpoint_size_GB"] == SIZE / GIB
    assert metric["save_checkpoint_duration_mean_seconds"] == seconds
    assert metric["load_checkpoint_io_mean_GB_per_second"] == pytest.approx(SIZE / GIB / seconds)
    stats = json.loads((tmp_path / "out/0_per_epoch_stats.json").read_text())["1"]
    assert [name for name in stats if "ckpt" in name] == ["save_ckpt1", "save_ckpt2", "load_ckpt1", "load_ckpt2"]
    assert stats["save_ckpt1"]["duration"] == 0.98
    assert stats["save_ckpt1"]["throughput"] == pytest.approx(SIZE / GIB / 0.98)
    log = (tmp_path / "out/dlio.log").read_text()
    assert "Running DLIO [Checkpointing] with 2 process(es)" in log
    assert f"[METRIC] Checkpoint save duration (seconds): {seconds:.4f} (0.0000)" in log


def test_an_operation_that_was_cut_short_stays_out_of_dlios_files(tmp_path: Path) -> None:
    saved(tmp_path / "run", load2__complete=False, status="partial")
    write_dlio_files(tmp_path / "run", tmp_path / "out")
    stats = json.loads((tmp_path / "out/0_per_epoch_stats.json").read_text())["1"]
    assert "load_ckpt2" not in stats
