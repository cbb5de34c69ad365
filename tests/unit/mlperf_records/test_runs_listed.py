"""The list of runs: of the journal and of other tools' leaves, of all editions, and one run in full."""

import json
import shutil
from pathlib import Path

import pytest
from records_place import made_results, run_of

from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.results_dir import ResultsDir
from stoker.bench.run.mlperf.runs import RunEntry, chosen, find_root, list_runs, named, show
from stoker.core.errors import UnknownNameError, UsageError
from stoker.testing.mlperf_trees import TreeMaker

LEAF = "closed/acme/results/sysA/training/unet3d/run"


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    return made_results(tmp_path)


def tree(root: Path, edition: str) -> Path:
    maker = TreeMaker(root, edition=edition)
    if edition == "1.0":
        maker.v1_training("closed", "sysA")
    else:
        maker.training("closed", "sysA", accelerator="b200" if edition == "3.0" else "h100")
        maker.checkpointing("open", "sysB")
    return maker.finish()


def test_runs_of_the_journal_are_listed_with_what_became_of_them(results: ResultsDir) -> None:
    assert [run_of(results, f"20260302_10000{n}", code=code) for n, code in enumerate((0, 6, None))] == ["1", "2", "3"]
    found = list_runs(results.root)
    assert [(each.id, each.status, each.exit_code) for each in found] == [
        ("1", "complete", 0),
        ("2", "failed", 6),
        ("3", "running", None),
    ]
    assert found[0].leaf == f"{LEAF}/20260302_100000" and found[0].started == "2026-03-02T10:00:00"


def test_a_leaf_that_is_gone_is_still_told(results: ResultsDir) -> None:
    run_of(results, "20260302_100000")
    shutil.rmtree(results.root / "closed")
    (found,) = list_runs(results.root)
    assert (found.id, found.leaf_exists) == ("1", False)


@pytest.mark.parametrize(("edition", "count"), [("1.0", 5), ("2.0", 9), ("3.0", 9)])
def test_leaves_of_the_reference_tool_are_listed(tmp_path: Path, edition: str, count: int) -> None:
    found = list_runs(tree(tmp_path / "tree", edition))
    assert len(found) == count
    assert {each.status for each in found} == {"complete"}
    assert {each.id for each in found} == {""}
    assert all(each.started.startswith("2026-03-02T1") for each in found)
    assert [each.started for each in found] == sorted(each.started for each in found)
    assert {each.system for each in found} == ({"sysA"} if edition == "1.0" else {"sysA", "sysB"})


def test_how_another_tools_run_ended_is_told_by_its_metadata_and_summary(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", "3.0")
    first, second, third = sorted((root / "closed/example/results/sysA/training/unet3d/run").iterdir())[:3]
    (metadata,) = first.glob("*_metadata.json")
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "exit_status": 6}))
    for leaf in (second, third):
        (metadata,) = leaf.glob("*_metadata.json")
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "exit_status": None}))
    (third / "summary.json").unlink()
    found = {each.leaf.rpartition("/")[2]: each.status for each in list_runs(root)}
    assert [found[leaf.name] for leaf in (first, second, third)] == ["failed", "complete", "incomplete"]


def test_both_kinds_are_one_list_by_time(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", "3.0")
    run = run_of(ResultsDir(root, "example"), "20260302_101600")
    found = list_runs(root)
    assert [each.id for each in found].index(run) == 3
    assert len(found) == 10


def test_filters_hold_together(tmp_path: Path) -> None:
    found = list_runs(tree(tmp_path / "tree", "3.0"))
    assert {each.division for each in chosen(found, division="open")} == {"open"}
    assert len(chosen(found, benchmark="training", division="closed", system="sysA", model="unet3d")) == 8
    assert chosen(found, benchmark="training", division="open") == []
    assert chosen(found, benchmark="kvcache") == []
    assert chosen(found, status="failed") == []
    with pytest.raises(UsageError, match="no such workload"):
        chosen(found, benchmark="juggling")


def test_a_run_is_named_by_id_path_or_the_end_of_one(results: ResultsDir) -> None:
    for n in range(12):
        run_of(results, f"20260302_1000{n:02}")
    found = list_runs(results.root)
    for text in (
        "2",
        f"{LEAF}/20260302_100001",
        "run/20260302_100001",
        "20260302_100001",
        f"./{LEAF}/20260302_100001/",
    ):
        assert named(found, text).id == "2"
    for text in ("", "99", "..", "/", "0001"):
        with pytest.raises(UnknownNameError):
            named(found, text)


def test_a_name_that_several_have_is_refused(tmp_path: Path, results: ResultsDir) -> None:
    for model in ("unet3d", "retinanet"):
        run_of(results, "20260302_100000", model=model)
    with pytest.raises(UnknownNameError, match="several runs end so"):
        named(list_runs(results.root), "20260302_100000")


def test_a_run_in_full(results: ResultsDir) -> None:
    run_of(results, "20260302_100000", words=("mlperf", "closed", "two words"))
    shown = show(results.root, "1")
    assert shown.words == ("mlperf", "closed", "two words")
    assert shown.metrics == {"train_au_mean_percentage": 97.4}
    assert (shown.files, shown.run.seconds) == (1, 12.5)


def test_a_leaf_of_another_tool_in_full(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", "3.0")
    first: RunEntry = next(each for each in list_runs(root) if each.command == "run")
    shown = show(root, first.leaf)
    assert shown.executed_command and shown.files > 8 and shown.metrics["train_au_meet_expectation"] == "success"


def test_the_tree_to_look_at_is_initialised_or_has_leaves(tmp_path: Path, results: ResultsDir) -> None:
    root = tree(tmp_path / "old", "2.0")
    assert find_root(str(root), {}) == root
    assert find_root(str(results.root), {}) == results.root
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(ConfigurationError, match="E101"):
            find_root(str(tmp_path / name), {})
    with pytest.raises(UsageError, match="E101"):
        find_root(None, {})


def test_links_in_the_tree_are_not_followed(results: ResultsDir, tmp_path: Path) -> None:
    run_of(results, "20260302_100000")
    (results.root / "open").symlink_to(results.root / "closed")
    assert len(list_runs(results.root)) == 1
