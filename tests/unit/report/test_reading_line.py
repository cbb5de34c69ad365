"""How the ranks read is told in one line: what was chosen, what was pinned, and why."""

import io

import msgspec
import pytest
import runs
from rich.console import Console

from stoker.bench.report.page import Saved, build
from stoker.bench.report.reading import reading_dict, reading_line
from stoker.bench.report.terminal import print_summary, summary_dict
from stoker.bench.rules import judge
from stoker.core.result import Reading, Result
from stoker.core.units import KiB, MiB

GROWN = "throughput stopped growing"
READING = Reading(
    engine="io_uring",
    readers=2,
    queue_depth=16,
    request_bytes=MiB,
    start={"readers": 2, "queue_depth": 8, "request_bytes": MiB},
    why=GROWN,
    settled=True,
    windows=9,
)


def told(*readings: Reading | None) -> Result:
    """A run whose ranks read so; the last one stands for the rest."""
    result = runs.realistic_result(with_histograms=False)
    for rank, reading in zip(result.ranks, (*readings, *(readings[-1],) * len(result.ranks)), strict=False):
        rank.reading = reading
    return result


def changed(**values: object) -> Reading:
    return msgspec.structs.replace(READING, **values)


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        (READING, f"io_uring, 2 readers × depth 16, requests of 1 MiB (chosen: {GROWN})"),
        (changed(readers=1, why=""), "io_uring, 1 reader × depth 16, requests of 1 MiB (chosen)"),
        (
            changed(pinned=("readers",), request_bytes=384 * KiB),
            f"io_uring, 2 readers × depth 16, requests of 384 KiB (readers pinned; chosen: {GROWN})",
        ),
        (
            changed(pinned=("readers", "queue_depth", "request_bytes"), why="nothing left to choose"),
            "io_uring, 2 readers × depth 16, requests of 1 MiB (pinned)",
        ),
        (changed(engine="", queue_depth=1, readers=8), f"8 readers (chosen: {GROWN})"),
        (changed(engine="", queue_depth=1, readers=8, pinned=("readers",)), "8 readers (pinned)"),
    ],
)
def test_ranks_that_agree_are_told_as_one(reading: Reading, line: str) -> None:
    assert reading_line(told(reading)) == line


def test_ranks_that_differ_are_told_as_ranges_and_each_reason_with_its_ranks() -> None:
    other = changed(readers=4, queue_depth=64, request_bytes=8 * MiB, why="the consumer does not wait")
    assert reading_line(told(other, READING)) == (
        "io_uring, 2 to 4 readers × depth 16 to 64, requests of 1 MiB to 8 MiB "
        f"(chosen: {GROWN} on 3 of 4 ranks, the consumer does not wait on 1 of 4 ranks)"
    )


def test_ranks_that_told_nothing_are_left_out() -> None:
    assert reading_line(told(None)) == ""
    assert reading_dict(told(None)) is None
    some = reading_dict(told(None, READING))
    assert some is not None and some["ranks"] == 3


def test_machines_get_least_and_most() -> None:
    assert reading_dict(told(changed(readers=4, settled=False), READING)) == {
        "ranks": 4,
        "engines": ["io_uring"],
        "readers_min": 2,
        "queue_depth_min": 16,
        "request_bytes_min": MiB,
        "readers_max": 4,
        "queue_depth_max": 16,
        "request_bytes_max": MiB,
        "pinned": [],
        "settled": False,
        "why": {GROWN: 4},
    }


def test_the_line_stands_on_the_page_and_on_the_terminal() -> None:
    result = told(READING)
    verdict = judge(result)
    page = build(Saved(result, verdict))
    assert dict(page["asked"])["reading"] == reading_line(result)
    stream = io.StringIO()
    print_summary(result, verdict, Console(file=stream))
    assert f"  reading    {reading_line(result)}\n" in stream.getvalue()
    assert summary_dict(result, verdict)["reading"] == reading_dict(result)


def test_a_result_without_it_is_shown_without_it() -> None:
    result = told(None)
    stream = io.StringIO()
    print_summary(result, judge(result), Console(file=stream))
    assert "  reading" not in stream.getvalue()
    assert dict(build(Saved(result, judge(result)))["asked"])["reading"] == "–"


def test_a_result_from_before_it_was_kept_can_be_read() -> None:
    document = msgspec.to_builtins(told(READING))
    for rank in document["ranks"]:
        del rank["reading"]
    for name in ("queue_depth", "request_bytes"):
        del document["plan"][name]
    old = msgspec.convert(document, Result)
    assert reading_line(old) == ""
    assert (old.plan.queue_depth, old.plan.request_bytes) == (0, 0)


def test_hostile_words_are_made_harmless_and_short() -> None:
    hostile = changed(engine="\x1b[31m" + "e" * 500, why="\n" * 3 + "w" * 500, request_bytes=-1, queue_depth=2**62)
    every = [changed(engine=f"{number}" * 300, why=f"\x9b{number}" * 300) for number in range(3)]
    line = reading_line(told(hostile, *every))
    assert "\x1b" not in line and "\n" not in line and "\x9b" not in line
    assert len(line) < 1000
