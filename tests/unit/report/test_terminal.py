"""The terminal summary: the same words with and without colour, and nothing that steers the terminal."""

import io
import json

import msgspec
import pytest
import runs
from hostile import hostile_result
from rich.console import Console

from stoker.bench.report.terminal import print_summary, summary_dict
from stoker.bench.rules import exit_code, judge
from stoker.core.result import Metrics, Result


def printed(result: Result, **console) -> str:
    stream = io.StringIO()
    print_summary(result, judge(result), Console(file=stream, **console))
    return stream.getvalue()


@pytest.fixture
def result() -> Result:
    return runs.realistic_result(with_histograms=False)


def test_file_gets_plain_text_with_everything_that_matters(result: Result) -> None:
    text = printed(result, width=80)
    assert "\x1b" not in text
    for words in ("YES", "95.32 %", "94.47 %", "90.00 % needed", "2.75 GiB/s", "read, 71 %", "not a submission"):
        assert words in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_no_color_leaves_no_colour_codes(result: Result) -> None:
    coloured = printed(result, force_terminal=True, color_system="standard")
    bare = printed(result, force_terminal=True, color_system="standard", no_color=True)
    assert "\x1b[1;32m" in coloured
    assert "32m" not in bare and "YES" in bare


def test_blocking_finding_tells_its_remedy(result: Result) -> None:
    result.evidence.counters.process_read_bytes = 0
    text = printed(result)
    assert "NOT PROVEN" in text and "evidence.counters" in text and "what helps: use direct I/O" in text


def test_notes_of_the_store_are_repeated(result: Result) -> None:
    result.evidence.notes = ["the file system refuses direct I/O: buffered reading was used"]
    assert "the file system refuses direct I/O" in printed(result)


def test_hostile_result_cannot_steer_the_terminal() -> None:
    result = hostile_result()
    result.evidence.notes = ["[red]not markup[/red] [link=http://x]"]
    text = printed(result, force_terminal=False)
    assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), 127, 0x9B, 0x202E)}
    assert "[red]not markup[/red]" in text


def test_summary_is_plain_data(result: Result) -> None:
    verdict = judge(result)
    summary = json.loads(msgspec.json.encode(summary_dict(result, verdict)))
    assert summary["schema"] == "stoker-summary/1"
    assert summary["answer"] == "yes" and summary["exit_code"] == exit_code(verdict) == 0
    assert summary["metrics"]["au_ratio"] == 0.9532
    assert summary["evidence"]["witness"] == "process_read_bytes"
    assert abs(summary["evidence"]["difference_ratio"]) < 0.01
    assert [finding["rule"] for finding in summary["findings"]] == [f.rule for f in verdict.findings]


def test_figures_that_are_no_numbers_do_not_break_the_summary(result: Result) -> None:
    result.metrics.au_ratio = float("nan")
    result.plan = runs.plan(au_threshold_ratio=float("nan"))
    assert "INVALID" in printed(result)


def test_without_a_step_no_figure_is_printed(result: Result) -> None:
    result.metrics = Metrics()
    text = printed(result)
    assert "no step was measured" in text and "0.00 %" not in text
