"""The results directory: its mark, how it is found, and that no name leads out of it."""

import os
import re
from pathlib import Path

import pytest

from stoker.bench.rules.mlperf import read_tree
from stoker.bench.run.mlperf import results_dir
from stoker.bench.run.mlperf.exits import ConfigurationError, exit_code_of
from stoker.bench.run.mlperf.results_dir import (
    SENTINEL,
    ResultsDir,
    earlier_spellings,
    initialise,
    open_results,
    record_default,
)
from stoker.core.errors import StokerError, UsageError
from stoker.core.plain_yaml import load_plain
from stoker.testing.mlperf_trees import TreeMaker

RUN = ("closed", "sysA", "training", "unet3d", "run")


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    return initialise(tmp_path / "results", "acme")


# -- init ------------------------------------------------------------------------------------------------------------


def test_init_leaves_a_mark_that_names_version_organisation_and_time(results: ResultsDir) -> None:
    found = load_plain((results.root / SENTINEL).read_text())
    assert found["mlperf_results_version"] == 2
    assert found["orgname"] == "acme"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["initialized_at"])
    assert found["initialized_by"].startswith("stoker ")


def test_the_same_organisation_again_changes_nothing(results: ResultsDir) -> None:
    before = (results.root / SENTINEL).read_bytes(), (results.root / SENTINEL).stat().st_mtime_ns
    assert initialise(results.root, "acme") == results
    assert before == ((results.root / SENTINEL).read_bytes(), (results.root / SENTINEL).stat().st_mtime_ns)


@pytest.mark.parametrize("org", ["ACME", "other"])
def test_another_organisation_is_a_double_init(results: ResultsDir, org: str) -> None:
    with pytest.raises(ConfigurationError, match=f"double-init.*expected {org}, got acme"):
        initialise(results.root, org)
    assert open_results(str(results.root), {}).org == "acme"


def test_a_directory_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match=r"not empty and was never initialised.*thesis\.txt"):
        initialise(tmp_path, "acme")
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_fresh_disk_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert initialise(tmp_path, "acme").org == "acme"


@pytest.mark.parametrize("org", ["", ".", "..", "a/b", "a b", "a\n", "ä", "-\0"])
def test_an_illegal_organisation_is_refused_before_anything_is_made(tmp_path: Path, org: str) -> None:
    with pytest.raises(UsageError, match="not a legal name of an organisation"):
        initialise(tmp_path / "new", org)
    assert not (tmp_path / "new").exists()


def test_a_name_that_yaml_would_take_for_a_number_stays_text(tmp_path: Path) -> None:
    assert initialise(tmp_path, "007").org == "007"
    assert open_results(str(tmp_path), {}).org == "007"


@pytest.mark.parametrize("version", [1, 2])
def test_marks_of_both_versions_are_read(tmp_path: Path, version: int) -> None:
    (tmp_path / SENTINEL).write_text(f"mlperf_results_version: {version}\norgname: Acme.Labs\n")
    assert open_results(str(tmp_path), {}).org == "Acme.Labs"


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mlperf_results_version: 3\norgname: acme\n",
        "mlperf_results_version: true\norgname: acme\n",
        "mlperf_results_version: 2\norgname: ../../etc\n",
        "mlperf_results_version: 2\norgname: ..\n",
        "mlperf_results_version: 2\norgname: 7\n",
        "mlperf_results_version: 2\norgname: !!python/object:os.system acme\n",
        "mlperf_results_version: 2\norgname: acme\n" + "#" * 70_000,
        "[" * 5000,
        BOMB,
    ],
    ids=["empty", "newer", "truth", "climbing", "dots", "number", "tag", "huge", "deep", "bomb"],
)
def test_a_mark_that_cannot_be_used_is_told_and_nothing_is_opened(tmp_path: Path, text: str) -> None:
    (tmp_path / SENTINEL).write_text(text)
    with pytest.raises(ConfigurationError, match="E101: the mark of the results directory cannot be used"):
        open_results(str(tmp_path), {})
    with pytest.raises(ConfigurationError, match="E101"):
        initialise(tmp_path, "acme")


def test_the_judge_takes_the_mark_of_init(tmp_path: Path) -> None:
    maker = TreeMaker(tmp_path / "tree", org="acme")
    maker.training("closed", "sysA")
    root = maker.finish()
    (root / SENTINEL).unlink()
    made = initialise(tmp_path / "made", "acme")
    (made.root / SENTINEL).rename(root / SENTINEL)
    from stoker.bench.rules.mlperf import judge_tree

    states = {outcome.rule: outcome.state for outcome in judge_tree(read_tree(root)).rules}
    assert (states["1.1"], states["2.1.1"]) == ("passed", "passed")


# -- finding it ------------------------------------------------------------------------------------------------------


def test_flag_wins_over_variable_and_that_over_the_recorded_one(tmp_path: Path) -> None:
    a, b, c = (initialise(tmp_path / name, name) for name in "abc")
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert record_default(c.root, environment) == tmp_path / "config" / "stoker" / "mlperf-results-dir"
    assert open_results(None, environment) == c
    environment["MLPSTORAGE_RESULTS_DIR"] = str(b.root)
    assert open_results(None, environment) == b
    assert open_results(str(a.root), environment) == a


def test_the_default_is_kept_in_the_home_when_no_config_folder_is_named(tmp_path: Path) -> None:
    made = initialise(tmp_path / "made", "acme")
    for environment in ({"HOME": str(tmp_path)}, {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative"}):
        assert record_default(made.root, environment) == tmp_path / ".config" / "stoker" / "mlperf-results-dir"
        assert open_results(None, environment) == made
    assert record_default(made.root, {}) is None


def test_none_told_is_wrong_use_and_says_e101(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "MLPERF_RESULTS_DIR": "/somewhere"}
    with pytest.raises(UsageError, match=r"E101.*MLPERF_RESULTS_DIR is an earlier spelling") as caught:
        open_results(None, environment)
    assert exit_code_of(caught.value) == 2


@pytest.mark.parametrize("below", ["", "missing"])
def test_one_that_was_never_initialised_is_told_by_e101(tmp_path: Path, below: str) -> None:
    with pytest.raises(ConfigurationError, match=r"E101: the results directory is not initialised.*init ORG DIR") as c:
        open_results(str(tmp_path / below), {})
    assert exit_code_of(c.value) == 5


def test_a_recorded_default_of_strangers_bytes_counts_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "stoker" / "mlperf-results-dir"
    file.parent.mkdir()
    for data in (b"relative\n", b"/a\n/b\n", b"/a\0b\n", b"", b"x" * 100_000):
        file.write_bytes(data)
        with pytest.raises(UsageError, match="E101"):
            open_results(None, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_earlier_spellings_are_told_only_where_they_have_no_twin() -> None:
    environment = {"MLPERF_DATA_DIR": "/d", "MLPERF_SYSTEMNAME": "a", "MLPSTORAGE_SYSTEMNAME": "a", "MLPERF_X": "y"}
    assert earlier_spellings(environment) == [
        "MLPERF_DATA_DIR is an earlier spelling without effect: set MLPSTORAGE_DATA_DIR"
    ]


# -- leaves ----------------------------------------------------------------------------------------------------------

STAMP = "20260302_101500"
PLACES = [
    (("closed", "sysA", "training", "unet3d", "datasize"), "", "closed/acme/results/sysA/training/unet3d/datasize"),
    (("open", "sysA", "checkpointing", "llama3-8b", "run"), "", "open/acme/results/sysA/checkpointing/llama3-8b"),
    (("whatif", "s", "kvcache", "m.1", "run"), "", "whatif/acme/results/s/kv_cache/m.1/run"),
    (("open", "s", "vectordb", "HNSW", "run"), "milvus", "open/acme/results/s/vector_database/milvus/HNSW/run"),
]


@pytest.mark.parametrize(("words", "engine", "expected"), PLACES)
def test_a_leaf_lies_where_the_judge_finds_it(
    results: ResultsDir, words: tuple[str, str, str, str, str], engine: str, expected: str
) -> None:
    leaf = results.leaf(*words, STAMP, engine)
    assert leaf == results.root / expected / STAMP
    leaf.mkdir(parents=True)
    (found,) = read_tree(results.root, edition="3.0").leaves
    division, _, _, model, command = words
    assert (found.division, found.model, found.command, found.time) == (division, model, command, STAMP)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../x", "a b", "a\0", "a\n"])
def test_every_part_of_a_leaf_is_held_to_the_pattern(results: ResultsDir, bad: str) -> None:
    good = ["closed", "sysA", "vectordb", "HNSW", "run", STAMP, "milvus"]
    for at in range(len(good)):
        division, system, family, model, command, stamp, engine = [*good[:at], bad, *good[at + 1 :]]
        with pytest.raises(UsageError):
            results.leaf(division, system, family, model, command, stamp, engine)


def test_only_runs_of_checkpointing_leave_a_folder(results: ResultsDir) -> None:
    with pytest.raises(UsageError, match="only runs of checkpointing"):
        results.leaf("closed", "sysA", "checkpointing", "llama3-8b", "datasize", STAMP)


def test_stamps_are_local_time_and_never_meet(results: ResultsDir, monkeypatch: pytest.MonkeyPatch) -> None:
    first, made = results.new_leaf(*RUN)
    assert re.fullmatch(r"\d{8}_\d{6}", first) and made.is_dir()
    monkeypatch.setattr(results_dir, "stamp_now", iter([first, first, "20990101_000000"]).__next__)
    monkeypatch.setattr(results_dir, "_wait_for_next_second", lambda: None)
    assert results.new_stamp(*RUN) == "20990101_000000"
    monkeypatch.setattr(results_dir, "stamp_now", iter([first, "20990101_000000"]).__next__)
    assert results.new_leaf(*RUN)[0] == "20990101_000000"


def test_two_leaves_at_once_get_two_seconds(results: ResultsDir) -> None:
    assert results.new_leaf(*RUN)[0] < results.new_leaf(*RUN)[0]


def test_a_link_in_the_tree_does_not_lead_a_leaf_out_of_it(results: ResultsDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (results.root / "closed").symlink_to(outside)
    with pytest.raises(ConfigurationError, match="a link leads out"):
        results.new_leaf(*RUN)


def test_evidence_lies_outside_of_what_is_submitted(results: ResultsDir) -> None:
    found = results.evidence(STAMP, "kvcache", "llama3.1-8b", "17")
    assert found == results.root / ".mlps" / "evidence" / f"{STAMP}-kv_cache-llama3.1-8b-17"
    with pytest.raises(UsageError):
        results.evidence(STAMP, "kvcache", "../..", "17")


def test_exit_codes_are_those_of_the_reference_tool() -> None:
    from stoker.core.errors import DeniedError, InterruptedRunError, NotFoundError, PreflightError

    told: list[tuple[BaseException, int]] = [
        (UsageError("a"), 2),
        (NotFoundError("a"), 3),
        (FileNotFoundError(), 3),
        (DeniedError("a"), 4),
        (PermissionError(), 4),
        (PreflightError("a"), 5),
        (TimeoutError(), 7),
        (InterruptedRunError("a"), 8),
        (StokerError("a"), 1),
        (OSError(), 1),
    ]
    assert [exit_code_of(error) for error, _ in told] == [code for _, code in told]
