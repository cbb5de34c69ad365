"""The table of the state bus judges from its samples alone, and says what is not there."""

import json
from pathlib import Path

import pytest
from benchmarks.goals import judge
from benchmarks.pages import __main__ as command
from benchmarks.pages.figures import GOALS, figures_markdown
from benchmarks.pages.rows import Conditions, Row, contest, row_markdown


def row(key: str, **medians: float) -> dict[str, object]:
    kept = {name: [(1e9, 0.0), (value, value), (0.0, 1e9)] for name, value in medians.items()}
    return Row(key, key, "ns", kept).document()


def status(document: dict[str, object], start: str) -> tuple[str, str]:
    goal = next(goal for goal in GOALS if goal.text.startswith(start))
    _, found, told = judge(goal, document)
    return found, told


def test_medians_are_held_against_the_figures() -> None:
    name = {"stoker allocate_id + free_id": 249.0}
    assert status({"rows": [row("hot/allocation", **name)]}, "allocate and free")[0] == "reached"
    name = {"stoker allocate_id + free_id": 251.0}
    assert status({"rows": [row("hot/allocation", **name)]}, "allocate and free")[0] == "not reached"
    groups = {"stoker": 1000.0, "write and fdatasync, one record": 11.0, "LMDB": 999.0}
    document = {"rows": [row("commits/group 512", **groups)]}
    assert status(document, "durable commits in groups of 512: 100 times")[0] == "not reached"
    assert status(document, "durable commits in groups of 512: at least LMDB")[0] == "reached"
    assert status(document, "durable commits in groups of 512: at least SQLite")[0] == "not measured"


def test_what_is_missing_is_told() -> None:
    assert status({"rows": []}, "replay")[0] == "not measured"
    gone = Row("replay", "", "GB/s", missing={"stoker replay": "no memory"}).document()
    assert status({"rows": [gone]}, "replay") == ("not measured", "no memory")
    text = figures_markdown({"rows": []})
    assert text.count("not measured") == len(GOALS) + 4


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def sampler(name: str) -> tuple[float, float]:
        order.append(name)
        return 1.0, 2.0

    found = contest(Row("k", "t", "ns"), {name: lambda name=name: sampler(name) for name in "ab"}, 3)
    assert "".join(order) == "ab" * 4
    assert found.samples == {"a": [(1.0, 2.0)] * 3, "b": [(1.0, 2.0)] * 3}
    assert "| a | 3 | 1 |" in row_markdown(found.document())


def test_the_command_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(conditions: Conditions) -> list[Row]:
        assert conditions.quick
        return [Row("replay", "Replay", "GB/s", {"stoker replay": [(2.0, 2.0)] * 3})]

    monkeypatch.setattr("benchmarks.pages.hot.rows", rows)
    command.main(["--quick", "--only", "hot", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "pages.json").read_text())
    assert document["command"] == "python -m benchmarks.pages --quick --only hot"
    assert document["rows"][0]["contenders"]["stoker replay"]["wall"] == [2.0, 2.0, 2.0]
    assert "| replay in memory: more than 1 GB/s of page bytes | reached |" in (tmp_path / "pages.md").read_text()
    assert "reached" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parsed(["--only", "nothing"])
    assert "no such part: nothing" in capsys.readouterr().err
