"""What is asked of reading gets into the plan, is refused where it cannot be, and is shown before the run."""

from typing import Any

import pytest
from conducted import JOB
from conducted import plan as run_plan

from stoker.bench.run.assemble import RunEnd, RunStart, assemble
from stoker.bench.run.options import FEED, TRAINING
from stoker.bench.run.plan import feed_draft
from stoker.bench.workloads.reports import RankReport, RankStart, StoreFacts
from stoker.bench.workloads.steps import joined
from stoker.cli.plan import plan_lines
from stoker.core.errors import UsageError
from stoker.core.options import resolve
from stoker.core.plan import TrainingPlan
from stoker.core.result import Reading
from stoker.core.units import MiB


def planned(**given: Any) -> TrainingPlan:
    flags = {"model": "unet3d", "accelerator": "h100", **given}
    return feed_draft(resolve(FEED, flags=flags, environment={}), target_url="")


def test_nothing_asked_leaves_the_model_s_readers_and_the_rest_to_be_chosen() -> None:
    plan = planned()
    assert (plan.read_threads, plan.queue_depth, plan.request_bytes) == (4, 0, 0)
    lines = plan_lines(plan)
    assert lines["loader"].startswith("4 readers, ")
    assert lines["requests"] == "depth and size chosen while it runs"


def test_each_can_be_pinned_or_left_to_be_chosen() -> None:
    plan = planned(read_threads="0", queue_depth="16", request_bytes="1MiB")
    assert (plan.read_threads, plan.queue_depth, plan.request_bytes) == (0, 16, MiB)
    lines = plan_lines(plan)
    assert lines["loader"].startswith("readers chosen while it runs, ")
    assert lines["requests"] == "depth 16, size 1.00 MiB"
    assert plan_lines(planned(queue_depth=16))["requests"] == "depth 16, size chosen while it runs"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("read_threads", "-1", "at least 0"),
        ("queue_depth", "4097", "at most 4096"),
        ("request_bytes", "2GiB", "out of range"),
        ("request_bytes", "5000", "multiple of 4.00 KiB"),
    ],
)
def test_what_cannot_be_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        planned(**{name: value})


def test_every_verb_that_reads_has_the_options() -> None:
    for rows in (FEED, TRAINING):
        assert {"read_threads", "queue_depth", "request_bytes"} <= {row.name for row in rows}


def test_each_rank_of_a_result_has_its_own() -> None:
    readings = [Reading(engine="io_uring", readers=1 + rank, queue_depth=8) for rank in range(2)]
    parts = []
    for rank, reading in enumerate(readings):
        start = RankStart(rank, "host", 1, rank, 2.0, StoreFacts(io_mode="buffered", io_mode_requested="buffered"))
        parts.append((RankReport(start, reading=reading), joined([])))
    begin = RunStart(id="x", job=JOB, plan=run_plan(ranks=2), started_utc="", launcher="local", machine={})
    result = assemble(begin, RunEnd(status="partial"), parts)
    assert [rank.reading for rank in result.ranks] == readings
