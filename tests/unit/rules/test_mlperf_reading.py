"""A tree from a stranger is listed and read within bounds, and whatever cannot be read is told once."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.bench.rules.mlperf import reading
from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.findings import Fault, tree_finding
from stoker.bench.rules.mlperf.judging import Judgement, RuleOutcome
from stoker.bench.rules.mlperf.reading import Files, dig, number, numbers, whole, words
from stoker.bench.rules.mlperf.telling import csv_text, judgement_dict
from stoker.core.units import MiB


def told(files: Files) -> list[tuple[str, str]]:
    return [(problem.rule, problem.path) for problem in files.problems]


def test_folders_and_files_are_listed_with_sizes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.json").write_text("12345")
    files = Files(tmp_path)
    assert files.top.folders["a"].files == {"x.json": 5}
    assert [folder.path for folder in files.top.walk()] == ["", "a", "a/b"]
    assert files.top.find("a", "b") is not None
    assert files.top.find("a", "c", "d") is None
    assert files.problems == []


def test_too_many_entries_stop_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ENTRIES_MAX", 10)
    for number_ in range(30):
        (tmp_path / f"f{number_}").write_text("")
    files = Files(tmp_path)
    assert told(files) == [("FILE-03", "")]
    assert len(files.top.files) == 10


def test_documents_beyond_all_bounds_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ALL_BYTES_MAX", 3)
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "b.json").write_text("[3]")
    files = Files(tmp_path)
    assert files.json("a.json") == [1, 2]
    assert files.json("b.json") is None
    assert told(files) == [("FILE-03", "b.json")]


def test_a_problem_is_told_once_however_often_the_document_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    files = Files(tmp_path)
    assert [files.json("a.json") for _ in range(3)] == [None] * 3
    assert told(files) == [("FILE-02", "a.json")]


def test_a_file_that_became_a_link_after_the_listing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (tmp_path / "tree" / "a.json").write_text("{}")
    files = Files(tmp_path / "tree")
    (tmp_path / "tree" / "a.json").unlink()
    (tmp_path / "tree" / "a.json").symlink_to("../secret.json")
    assert files.json("a.json") is None
    assert told(files) == [("FILE-02", "a.json")]


def test_a_file_that_became_a_pipe_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    files = Files(tmp_path)
    (tmp_path / "a.json").unlink()
    os.mkfifo(tmp_path / "a.json")
    assert files.json("a.json") is None
    assert told(files) == [("FILE-02", "a.json")]


def test_of_a_large_document_only_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    class Wanted(msgspec.Struct):
        summary: dict[str, Any] = {}

    (tmp_path / "a.json").write_text('{"raw": [' + "1," * (9 * MiB) + '1], "summary": {"x": 2}}')
    files = Files(tmp_path)
    assert files.json("a.json", Wanted).summary == {"x": 2}
    assert files.json("a.json") is None  # as a whole it is over the bound
    assert told(files) == [("FILE-02", "a.json")]


@pytest.mark.parametrize(
    ("value", "as_number", "as_whole"),
    [
        (5, 5.0, 5),
        (5.5, 5.5, None),
        ("5", 5.0, 5),
        (True, None, None),
        (None, None, None),
        ("five", None, None),
        ("nan", None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        ("1e999", None, None),
        (10**400, None, None),
        (1e19, None, None),
        ([], None, None),
    ],
)
def test_numbers_are_finite_and_bounded(value: Any, as_number: float | None, as_whole: int | None) -> None:
    assert number({"a": {"b": value}}, "a.b") == as_number
    assert whole({"a": {"b": value}}, "a.b") == as_whole


def test_accessors_take_any_shape() -> None:
    for document in (None, 3, [], "a", {"a": 3}, {"a": None}):
        assert dig(document, ["a", "b"]) is None
        assert number(document, "a.b") is None
        assert words(document, "a.b") is None
        assert numbers(document, "a.b") is None
    assert numbers({"a": [1, "2", 3.5]}, "a") == [1.0, 2.0, 3.5]
    assert numbers({"a": [1, None]}, "a") is None


def test_cells_cannot_be_formulas_and_names_need_not_be_utf8() -> None:
    fault = Fault(observed="@seen", expected="-1", path="=cmd|' /C calc'!A0", key="\udcff")
    finding = tree_finding(RULES["FILE-01"], fault)
    outcome = RuleOutcome("FILE-01", "filePlain", "failed", failed=1)
    judgement = Judgement("invalid", "package", "3.0", (), 0, 0, (finding,), (outcome,))
    row = csv_text(judgement).splitlines()[1]
    assert row.startswith("ERROR,FILE-01,filePlain,'=cmd|' /C calc'!A0,\\udcff,'@seen,'-1,")
    assert judgement_dict(judgement)["findings"][0]["key"] == "\\udcff"
    assert finding.line.startswith("[ERROR] [FILE-01 filePlain] =cmd")
