"""Runs of checkpoints with real ranks: to the end, stopped, killed, recovered; and checkpoints in the training loop."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conducted import Conductor, all_gone, plan, until

from stoker.bench.rules import judge
from stoker.bench.run.checkpoint import NO_DATASET
from stoker.bench.run.conduct import ProgressEvent, check_plan, conduct
from stoker.bench.run.recover import KILLED, load_or_recover, recover
from stoker.bench.workloads.rank_log import read_rank_log
from stoker.checkpoint.layout import totals
from stoker.checkpoint.manifest import list_checkpoints
from stoker.core.checkpoints import CheckpointPlan, ModelShape
from stoker.core.errors import UsageError
from stoker.core.plan import Job, Spread, TrainingPlan
from stoker.core.result import RESULT_FILE, Result, load_result
from stoker.storage.opening import open_store

SHAPE = ModelShape(2, 96, 64, 4, 2, 4099, zero_stage=3)


def saves(*, ranks: int = 2, shape: ModelShape = SHAPE, **changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {"writes": 2, "reads": 2, "interval_seconds": 0.0, "folder": "m", "verify_ratio": 1.0}
    what = CheckpointPlan(shape, **{**values, "buffers": 4, "buffer_bytes": 1 << 16, **changes})
    return TrainingPlan("test", NO_DATASET, ranks, 0, Spread(), epochs=0, checkpoint=what)


def whole(url: str, folder: str = "m") -> list[str]:
    store = open_store(url)
    try:
        return [name for name, is_whole in list_checkpoints(store, folder) if is_whole]
    finally:
        store.close()


def test_a_run_of_checkpoints_is_a_result_like_any_other(tmp_path: Path) -> None:
    url, seen = f"file://{tmp_path}/t", list[ProgressEvent]()
    result = conduct(Job("run checkpointing"), saves(ranks=4), url, tmp_path / "run", progress=seen.append)
    assert result.status == "complete", result.reason
    size = totals(SHAPE, 4).size_bytes
    assert [(each.operation, each.bytes, each.complete) for each in result.checkpoints] == [
        ("save", size, True),
        ("save", size, True),
        ("load", size, True),
        ("load", size, True),
    ]
    assert result.evidence.ledger.written_bytes == result.evidence.ledger.delivered_bytes == 2 * size
    assert result.checkpointing is not None and result.checkpointing.save is not None
    assert result.checkpointing.save.bytes_per_second <= result.checkpointing.save.bytes_per_second_compatible * 1.0001
    assert [len(rank.checkpoints) for rank in result.ranks] == [4] * 4
    assert judge(result).answer in ("yes", "not_proven", "client_limited")
    assert msgspec.json.encode(load_result(tmp_path / "run")) == msgspec.json.encode(result)
    again = recover(tmp_path / "run", save=False)
    assert (again.checkpoints, again.checkpointing) == (result.checkpoints, result.checkpointing)


def test_old_results_without_checkpoints_stay_readable(tmp_path: Path) -> None:
    result = conduct(Job("run checkpointing"), saves(), f"file://{tmp_path}/t", tmp_path / "run")
    document = msgspec.to_builtins(result)
    for part, names in ((document, ("checkpoints", "checkpointing")), (document["plan"], ("checkpoint",))):
        for name in names:
            del part[name]
    for rank in document["ranks"]:
        del rank["checkpoints"]
    old = msgspec.json.decode(msgspec.json.encode(document), type=Result)
    assert (old.checkpoints, old.checkpointing, old.plan.checkpoint, old.plan.trains) == ([], None, None, True)


def test_a_rank_that_fails_ends_all_and_commits_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    (tmp_path / "t/m").mkdir(parents=True)
    (tmp_path / "t/m/global_epoch1_step2").write_text("a file where a folder is to be")
    result = conduct(Job("run checkpointing"), saves(), url, tmp_path / "run")
    assert result.status == "failed"
    assert "rank 0" in result.reason
    assert whole(url) == ["global_epoch1_step1"]
    assert judge(result).answer == "invalid"


BIG = ModelShape(2, 1024, 4096, 4, 2, 40_000, zero_stage=3)


def begun(conductor: Conductor, ranks: int = 2) -> list[int]:
    """Wait until every rank has begun a save; return their process ids."""
    found: dict[int, int] = {}

    def look() -> bool:
        for rank in range(ranks):
            log = conductor.folder / "ranks" / f"rank-{rank:04d}.jsonl"
            part = read_rank_log(log) if log.exists() else None
            if part is not None and part[0].checkpoints:
                found[rank] = part[0].start.pid
        assert conductor.process.poll() is None, conductor.process.communicate()
        return len(found) == ranks

    assert until(look, 40)
    return [found[rank] for rank in range(ranks)]


def test_a_signal_in_the_middle_leaves_a_partial_result_and_a_torn_checkpoint(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    conductor = Conductor(saves(shape=BIG, writes=1000, keep=1), url, tmp_path / "run")
    pids = begun(conductor)
    conductor.signal(signal.SIGTERM)
    _, out, errors = conductor.end(20)
    assert out.startswith("partial|stopped by SIGTERM"), errors
    assert all_gone(pids, 1)
    result = load_result(tmp_path / "run")
    kept = [each.id for each in result.checkpoints if each.complete][-1:]
    assert set(whole(url)) <= {*kept, *[each.id for each in result.checkpoints if each.complete][-2:]}
    assert judge(result).answer == "partial"


def test_a_killed_rank_fails_the_run_and_its_save_is_torn(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    conductor = Conductor(saves(shape=BIG, writes=1000, keep=1), url, tmp_path / "run")
    pids = begun(conductor)
    os.kill(pids[1], signal.SIGKILL)
    _, out, errors = conductor.end(20)
    assert out.startswith("failed|rank 1 (pid"), errors
    result = load_result(tmp_path / "run")
    assert result.status == "failed"
    assert {each.id for each in result.checkpoints if not each.complete}.isdisjoint(whole(url))


@pytest.mark.parametrize("delay_ms", [0, 300, 900])
def test_a_run_killed_at_any_moment_is_recovered(delay_ms: int, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/t"
    conductor = Conductor(saves(shape=BIG, writes=1000, keep=1), url, tmp_path / "run")
    pids = begun(conductor)
    time.sleep(delay_ms / 1000)
    conductor.kill_group()
    conductor.end(10)
    assert all_gone(pids)
    assert not (tmp_path / "run" / RESULT_FILE).exists()
    result = load_or_recover(tmp_path / "run")
    assert (result.status, result.reason) == ("partial", KILLED)
    assert result.checkpoints
    seen = {each.id: each for each in result.checkpoints}
    for name in whole(url):
        assert all(note.bytes for rank in result.ranks for note in rank.checkpoints if note.id == name), seen[name]
    assert judge(result).answer == "partial"


def in_loop(tmp_path: Path, **changes: Any) -> CheckpointPlan:
    return CheckpointPlan(
        ModelShape(blob_bytes=100_000, zero_stage=1),
        target_url=f"file://{tmp_path}/c",
        buffers=2,
        buffer_bytes=1 << 16,
        **changes,
    )


def test_training_saves_after_epochs(dataset: str, tmp_path: Path) -> None:
    what = in_loop(tmp_path, after_epoch=2, epochs_between=2)
    result = conduct(Job("dlio"), plan(epochs=5, checkpoint=what), dataset, tmp_path / "run")
    assert result.status == "complete", result.reason
    assert [each.id for each in result.checkpoints] == ["global_epoch2_step13", "global_epoch4_step13"]
    assert whole(what.target_url, "") == ["global_epoch2_step13", "global_epoch4_step13"]
    assert [(each.steps, each.complete) for each in result.epochs] == [(12, True)] * 5
    assert result.evidence.ledger.written_bytes == 0, "the ledger of the training is the dataset's"
    assert all(each.bytes == 200_000 and each.complete for each in result.checkpoints)


def test_training_saves_after_steps_which_ends_blocks(dataset: str, tmp_path: Path) -> None:
    what = in_loop(tmp_path, steps_between=5)
    result = conduct(Job("dlio"), plan(epochs=2, checkpoint=what), dataset, tmp_path / "run")
    assert [each.id for each in result.checkpoints] == [f"global_epoch{e}_step{s}" for e in (1, 2) for s in (5, 10)]
    assert [(each.steps, each.complete, each.coverage_exact) for each in result.epochs] == [(12, True, True)] * 2
    parts = [read_rank_log(tmp_path / "run/ranks" / f"rank-{rank:04d}.jsonl") for rank in range(2)]
    for part in parts:
        assert part is not None
        assert part[1][:, 2].tolist() == [0] * 5 + [1] * 5 + [2] * 2 + [0] * 5 + [1] * 5 + [2] * 2


def test_plans_without_sense_are_refused() -> None:
    for changes in ({"writes": 0, "reads": 0}, {"keep": -1}, {"interval_seconds": -1.0}):
        with pytest.raises(UsageError):
            check_plan(saves(**changes))
    with pytest.raises(UsageError, match="multiple"):
        check_plan(saves(ranks=3, shape=msgspec.structs.replace(SHAPE, tensor=2)))
