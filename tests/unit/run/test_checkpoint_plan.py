"""From settings to the plan of a run of checkpoints: figures, deviations, places, room."""

from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run import checkpoint
from stoker.bench.run.checkpoint import plan_checkpointing, require_checkpoint_target, require_room
from stoker.bench.run.options import CHECKPOINTING
from stoker.bench.run.target import synced_url
from stoker.core.errors import PreflightError, UnknownNameError, UsageError
from stoker.core.options import Setting, resolve
from stoker.core.plan import TrainingPlan

GIB = 1 << 30


def settings(**given: Any) -> dict[str, Setting]:
    return resolve(CHECKPOINTING, flags={"model": "llama3-8b", **given}, environment={})


def planned(**given: Any) -> TrainingPlan:
    return plan_checkpointing(settings(**given), None)


def test_the_rules_own_run_has_no_deviation() -> None:
    plan = planned()
    assert plan.deviations == ()
    assert (plan.ranks, plan.trains, plan.model) == (8, False, "llama3-8b")
    figures = plan.predicted
    assert figures["checkpoint_bytes"] / GIB == pytest.approx(104.70452, rel=1e-6)
    assert (
        figures["written_bytes"] == figures["read_bytes"] == figures["room_bytes"] == 10 * figures["checkpoint_bytes"]
    )
    assert (figures["files"], figures["pause_seconds"]) == (16, 100)
    assert figures["rank_memory_bytes"] == (8 + 4) * 16 * (1 << 20)
    assert planned(model="llama3-1t").ranks == 1024


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scale": 0.01}, "scaled down (every tensor is cut to 0.01 of its length)"),
        ({"layers": 2}, "it has 2 layers of 32"),
        ({"ranks": 4}, "spread over 4 ranks; the rules have 8"),
        ({"num_checkpoints_write": 3}, "3 checkpoints are written and 10 read"),
        ({"interval": 1.0}, "The pause before each is 1.00 s"),
        ({"fsync": "none"}, "Nothing is synced"),
        ({"keep": 2}, "Only the last 2 checkpoints are kept"),
        ({"model": "llama3-70b", "subset": True, "ranks": 8}, "Only a subset of 8 of 64 ranks is written"),
    ],
)
def test_departures_from_the_rules_are_told(given: dict[str, Any], told: str) -> None:
    assert any(told in each for each in planned(**given).deviations)


def test_two_runs_that_write_and_read_apart_are_the_rules_other_shape() -> None:
    assert planned(num_checkpoints_read=0).deviations == ()
    assert planned(num_checkpoints_write=0).deviations == ()


def test_memory_and_room_follow_the_options() -> None:
    figures = planned(write_buffers=4, buffer_bytes=1 << 20, writers=4, read_depth=2, verify=0.5, keep=2).predicted
    assert figures["rank_memory_bytes"] == (2 * 4 + 2 * 2) * (1 << 20)
    assert figures["room_bytes"] == 3 * figures["checkpoint_bytes"]
    assert planned(num_checkpoints_write=0).predicted["room_bytes"] == 0


def test_a_subset_has_the_bytes_of_its_ranks_alone() -> None:
    plan = planned(model="llama3-70b", subset=True, ranks=8)
    assert plan.predicted["files"] == 16
    assert plan.predicted["checkpoint_bytes"] / GIB == pytest.approx(911.21213 / 8, rel=1e-3)


def test_names_and_numbers_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'llama3-8b'"):
        planned(model="llama3-9b")
    with pytest.raises(UsageError, match="--model is missing"):
        planned(model=None)
    with pytest.raises(UsageError, match="a multiple of 8"):
        planned(model="llama3-70b", ranks=3)
    with pytest.raises(UsageError, match="above 0"):
        planned(scale=0.0)


@pytest.mark.parametrize(
    ("target", "fsync", "url"),
    [
        ("/a/b", None, "/a/b"),
        ("/a/b", "none", "file:///a/b?fsync=none"),
        ("file:///a", "data", "file:///a?fsync=data"),
        ("direct:///a?fallback=buffered", "full", "direct:///a?fallback=buffered&fsync=full"),
        ("s3://b/c", None, "s3://b/c"),
    ],
)
def test_fsync_becomes_the_stores(target: str, fsync: str | None, url: str) -> None:
    assert synced_url(target, fsync) == url


def test_fsync_is_told_once_and_where_it_means_something() -> None:
    with pytest.raises(UsageError, match="told twice"):
        synced_url("file:///a?fsync=none", "none")
    with pytest.raises(UsageError, match="no effect"):
        synced_url("s3://b/c", "none")
    assert plan_checkpointing(settings(), "file:///a?fsync=none").checkpoint.fsync == "none"  # type: ignore[union-attr]


def test_targets_that_no_rank_can_share_or_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory of one process"):
        require_checkpoint_target("mem://", write=True)
    with pytest.raises(PreflightError, match="no such folder"):
        require_checkpoint_target(str(tmp_path / "none"), write=False)
    require_checkpoint_target(str(tmp_path / "made"), write=True)
    require_checkpoint_target("null://", write=True)


def test_room_is_needed_for_what_is_kept_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_checkpointing(settings(), str(tmp_path))
    monkeypatch.setattr(checkpoint, "free_space_bytes", lambda _: plan.predicted["room_bytes"] - 1)
    with pytest.raises(PreflightError, match=r"expected 1.02 TiB \(10 checkpoints of 104.70 GiB\)"):
        require_room(plan, str(tmp_path))
    require_room(plan_checkpointing(settings(keep=1), str(tmp_path)), str(tmp_path))
    require_room(plan_checkpointing(settings(num_checkpoints_read=0, keep=1), "null://"), "null://")


def test_nothing_to_read_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no checkpoint to read"):
        plan_checkpointing(settings(num_checkpoints_write=0), str(tmp_path))
    with pytest.raises(PreflightError, match="no checkpoint to read"):
        plan_checkpointing(settings(num_checkpoints_write=0), str(tmp_path / "none"))
