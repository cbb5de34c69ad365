"""Removing: which runs, into the trash and out of it, and that nothing outside of the results directory is touched."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from records_place import made_results, run_of

from stoker.bench.run.mlperf import removing
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.journal import Process, RunLine
from stoker.bench.run.mlperf.removing import (
    older_than,
    purge,
    remove_code,
    remove_runs,
    selected,
    trash_size,
    unused_code,
)
from stoker.bench.run.mlperf.results_dir import ResultsDir
from stoker.bench.run.mlperf.runs import list_runs, named
from stoker.core.errors import StokerError, UsageError
from stoker.testing.mlperf_trees import TreeMaker

LEAF = "closed/acme/results/sysA/training/unet3d/run"
IMAGE = "code-0123abcd"


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    return made_results(tmp_path)


def names(root: Path) -> list[str]:
    return [each.name for each in list_runs(root)]


def everything(root: Path) -> dict[str, bytes]:
    """The plain files under a folder that are not the journal's."""
    files = (path for path in root.rglob("*") if path.is_file() and path.parent.name != ".mlps")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# -- which -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "ago"), [("12h", 12), ("7d", 168), ("2w", 336), ("0h", 0)])
def test_an_age_is_local_time_before_now(text: str, ago: int) -> None:
    found = datetime.fromisoformat(older_than(text))
    assert abs((datetime.now() - timedelta(hours=ago) - found).total_seconds()) < 5


def test_a_date_is_midnight() -> None:
    assert older_than("2026-03-02") == "2026-03-02T00:00:00"
    assert older_than("2026-03-02T12:30") == "2026-03-02T12:30:00"


@pytest.mark.parametrize("text", ["", "h", "7", "7m", "-7d", "1.5h", "٣d", "yesterday", "9" * 30 + "w", "2026-02-30"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an age"):
        older_than(text)


def test_conditions_hold_together_and_never_touch_what_may_run(results: ResultsDir) -> None:
    for n, code in enumerate((0, 6, 0, 6, None)):
        run_of(results, f"20260302_10000{n}", code=code)
    found = list_runs(results.root)
    assert [each.id for each in selected(found, status="failed")] == ["2", "4"]
    assert [each.id for each in selected(found, before="2026-03-02T10:00:02")] == ["1", "2"]
    assert [each.id for each in selected(found, status="failed", before="2026-03-02T10:00:02")] == ["2"]
    assert [each.id for each in selected(found, keep_last=2)] == ["1", "2", "3"]
    assert [each.id for each in selected(found, keep_last=0)] == ["1", "2", "3", "4"]
    assert selected(found, keep_last=9) == []


def test_the_newest_are_kept_of_each_series(results: ResultsDir) -> None:
    for n, model in enumerate(("unet3d", "unet3d", "retinanet")):
        run_of(results, f"20260302_10000{n}", model=model)
    assert [each.id for each in selected(list_runs(results.root), keep_last=1)] == ["1"]


def test_a_run_of_another_host_is_no_conditions_prey(results: ResultsDir) -> None:
    line = RunLine("begin", id="1", leaf=f"{LEAF}/20260302_100000", process=Process(host="elsewhere", pid=1))
    import msgspec

    (results.hidden / "runs.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")
    (found,) = list_runs(results.root)
    assert found.status == "unknown"
    assert selected([found], keep_last=0) == []
    remove_runs(results, [found])  # who names it knows it
    assert names(results.root) == []


# -- into the trash and out of it ------------------------------------------------------------------------------------


def test_a_run_goes_with_its_evidence_and_can_be_found_in_the_batch(results: ResultsDir) -> None:
    run_of(results, "20260302_100000")
    run_of(results, "20260302_100001")
    kept = [path for path in everything(results.root) if "100001" in path]
    batch = remove_runs(results, [named(list_runs(results.root), "1")])
    assert names(results.root) == ["2"]
    place = results.root / batch.path
    assert (place / LEAF / "20260302_100000" / "summary.json").is_file()
    assert (place / ".mlps/evidence/20260302_100000-training-unet3d-1/result.json").is_file()
    assert json.loads((place / "batch.json").read_text())["moved"] == list(batch.moved)
    assert [path for path in everything(results.root) if "100001" in path] == kept
    assert not (results.root / LEAF / "20260302_100000").exists()


def test_folders_that_are_empty_then_go_and_others_stay(results: ResultsDir) -> None:
    run_of(results, "20260302_100000")
    run_of(results, "20260302_100001", model="retinanet")
    rollup = results.root / "closed/acme/results/sysA/training/unet3d/results.json"
    rollup.write_text("[]")
    remove_runs(results, [named(list_runs(results.root), "1")])
    assert rollup.exists() and not rollup.with_name("run").exists()
    remove_runs(results, [named(list_runs(results.root), "2")])
    assert not rollup.parent.with_name("retinanet").exists()
    assert sorted(os.listdir(results.root / "closed/acme/results")) == ["sysA"]


def test_leaves_of_the_reference_tool_go_too(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path / "tree", org="acme")
    maker.training("closed", "sysA")
    results = ResultsDir(maker.finish(), "acme")
    found = [each for each in list_runs(results.root) if each.command == "run"]
    remove_runs(results, found[:2])
    assert names(results.root) == [each.name for each in list_runs(results.root)]
    assert len(names(results.root)) == 6


def test_two_batches_of_one_second_lie_side_by_side(results: ResultsDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(results, "20260302_100000"), run_of(results, "20260302_100001")
    monkeypatch.setattr(removing, "stamp_now", lambda: "20260302_110000")
    batches = [remove_runs(results, [each]).path for each in list_runs(results.root)]
    assert batches == [".mlps/trash/20260302_110000", ".mlps/trash/20260302_110000-1"]


def test_a_run_that_is_going_on_is_refused(results: ResultsDir) -> None:
    run_of(results, "20260302_100000", code=None)
    before = everything(results.root)
    with pytest.raises(UsageError, match="going on"):
        remove_runs(results, list_runs(results.root))
    assert everything(results.root) == before


def test_the_trash_is_measured_and_emptied(results: ResultsDir) -> None:
    assert trash_size(results).batches == purge(results).batches == 0
    run_of(results, "20260302_100000")
    remove_runs(results, list_runs(results.root))
    size = trash_size(results)
    assert (size.batches, size.files) == (1, 3) and size.bytes > 0
    assert purge(results) == size
    assert os.listdir(results.hidden / "trash") == []
    assert names(results.root) == []


# -- nothing outside -------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "20260302_100000").mkdir(parents=True)
    (folder / "precious").write_text("years of work")
    (folder / "20260302_100000" / "precious").write_text("years of work")
    return folder


@pytest.mark.parametrize("link", [".mlps/trash", ".mlps"])
def test_a_trash_that_is_a_link_is_not_entered(results: ResultsDir, outside: Path, link: str) -> None:
    run_of(results, "20260302_100000")
    found = list_runs(results.root)
    if link == ".mlps":
        (results.root / link).rename(results.root / "away")
        (outside / "trash").mkdir()
    (results.root / link).symlink_to(outside)
    before = everything(outside)
    for act in (lambda: remove_runs(results, found), lambda: purge(results), lambda: trash_size(results)):
        with pytest.raises(StokerError):
            act()
    assert everything(outside) == before
    assert (results.root / LEAF / "20260302_100000" / "summary.json").is_file()


def test_a_batch_that_is_a_link_is_unlinked_not_emptied(results: ResultsDir, outside: Path) -> None:
    (results.hidden / "trash" / "batch").mkdir(parents=True)
    (results.hidden / "trash" / "20260302_100000").symlink_to(outside)
    (results.hidden / "trash" / "batch" / "inner").symlink_to(outside)
    before = everything(outside)
    purge(results)
    assert everything(outside) == before
    assert os.listdir(results.hidden / "trash") == []


@pytest.mark.parametrize("at", ["leaf", "above"])
def test_a_leaf_that_became_a_link_is_not_moved(results: ResultsDir, outside: Path, at: str) -> None:
    run_of(results, "20260302_100000")
    found = list_runs(results.root)
    place = results.root / LEAF / "20260302_100000" if at == "leaf" else results.root / LEAF
    place.rename(results.root / "away")
    place.symlink_to(outside)
    before = everything(outside)
    with pytest.raises(StokerError, match="link"):
        remove_runs(results, found)
    assert everything(outside) == before
    assert names(results.root) == ["1"]


def test_a_journal_of_strangers_moves_nothing_that_is_no_leaf(results: ResultsDir) -> None:
    run_of(results, "20260302_100000")
    strange = (".mlps", "closed", "mlperf-results.yaml", "../outside", "/etc", "closed/../..", "closed/acme/results")
    for n, leaf in enumerate(strange, 10):
        lines = ({"event": "begin", "id": str(n), "leaf": leaf}, {"event": "end", "id": str(n), "status": "failed"})
        with (results.hidden / "runs.jsonl").open("a") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
    assert names(results.root) == ["1"]
    assert selected(list_runs(results.root), status="failed") == []
    assert (results.root / "mlperf-results.yaml").is_file() and (results.root / LEAF).is_dir()


KILLED = """
import os, signal, sys
from stoker.bench.run.mlperf import removing
from stoker.bench.run.mlperf.results_dir import open_results
from stoker.bench.run.mlperf.runs import list_runs
results, moves = open_results(sys.argv[1], {}), []
move = removing._move
def kill_after_the_first(*arguments):
    move(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
removing._move = kill_after_the_first
removing.remove_runs(results, list_runs(results.root))
"""


def test_a_removal_that_is_killed_loses_nothing(results: ResultsDir) -> None:
    run_of(results, "20260302_100000"), run_of(results, "20260302_100001")
    before = sorted(everything(results.root).values())
    done = subprocess.run([sys.executable, "-c", KILLED, str(results.root)])
    assert done.returncode == -9
    left = everything(results.root)
    (batch,) = (path for path in left if path.endswith("batch.json"))
    assert len(json.loads(left.pop(batch))["moved"]) == 4
    assert sorted(left.values()) == before
    assert [(each.id, each.leaf_exists) for each in list_runs(results.root)] == [("1", False), ("2", True)]


# -- code images -----------------------------------------------------------------------------------------------------


def image(results: ResultsDir, name: str) -> Path:
    folder = results.root / "code-images" / name
    folder.mkdir(parents=True)
    (folder.parent / ".mlps-image-pool").write_text("")
    (folder / ".code-hash.json").write_text("{}")
    return folder


def test_images_that_no_run_names_are_collected(results: ResultsDir) -> None:
    used, unused = image(results, IMAGE), image(results, "code-ffffffff")
    run_of(results, "20260302_100000", image=IMAGE)
    assert unused_code(results) == ["code-images/code-ffffffff"]
    batch = remove_code(results, unused_code(results))
    assert used.is_dir() and not unused.exists()
    assert (results.root / batch.path / "code-images/code-ffffffff/.code-hash.json").is_file()
    assert unused_code(results) == []


def test_an_image_that_a_run_in_the_trash_names_stays_until_that_is_emptied(results: ResultsDir) -> None:
    image(results, IMAGE)
    run_of(results, "20260302_100000", image=IMAGE)
    remove_runs(results, list_runs(results.root))
    assert unused_code(results) == []
    purge(results)
    assert unused_code(results) == [f"code-images/{IMAGE}"]


def test_nothing_is_collected_while_a_run_may_be_going_on(results: ResultsDir) -> None:
    image(results, IMAGE)
    run_of(results, "20260302_100000", code=None)
    with pytest.raises(ConfigurationError, match="going on"):
        unused_code(results)


def test_nothing_is_collected_when_a_pointer_cannot_be_read(results: ResultsDir) -> None:
    image(results, IMAGE)
    run_of(results, "20260302_100000", image=IMAGE)
    (results.root / LEAF / "20260302_100000" / ".mlps-code-image").write_bytes(b"\xff\xff")
    with pytest.raises(ConfigurationError, match="not all of the tree can be read"):
        unused_code(results)


def test_a_pool_that_is_a_link_is_not_collected(results: ResultsDir, outside: Path) -> None:
    (outside / IMAGE).mkdir()
    (results.root / "code-images").symlink_to(outside)
    assert unused_code(results) == []
    with pytest.raises(StokerError, match="link"):
        remove_code(results, [f"code-images/{IMAGE}"])
    assert (outside / IMAGE).is_dir()
