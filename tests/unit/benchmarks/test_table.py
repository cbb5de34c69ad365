"""The peer table: medians, paired ratios, who dropped out, what is missing, and the figures to reach."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import table
from benchmarks.__main__ import main, parsed
from benchmarks.conditions import Conditions
from benchmarks.contest import Contest, Series, markdown, of_ours
from benchmarks.goals import GOALS, judge, ratios
from benchmarks.harness import Contender, PeerError, Turn, race
from benchmarks.peers import Peers, find_peers, run_turn

from stoker.core.errors import NoSpaceError
from stoker.core.units import GiB


def turns(*seconds: float) -> Any:
    """A contender's turns of 1 GiB in 100 samples, each taking the next of the seconds."""
    left = iter(seconds)

    def run() -> Turn:
        wall = next(left)
        return Turn(GiB, 100, cpu_seconds=wall / 2, wall_seconds=wall, peak_bytes=1000)

    return run


def raced(*contenders: Contender, rounds: int = 3) -> dict[str, Any]:
    race(list(contenders), rounds, warm_rounds=0)
    return Contest(
        "a/contest", list(contenders), ceiling="peer", missing={"other": "other is not installed"}
    ).document()


def test_contest_tells_medians_and_the_ratios_of_paired_rounds() -> None:
    document = raced(Contender("stoker", turns(1.0, 2.0, 4.0)), Contender("peer", turns(2.0, 8.0, 4.0)))
    ours, peer = document["contenders"]
    assert ours["bytes_per_second"]["median"] == GiB / 2
    assert peer["samples_per_cpu_second"]["median"] == 50
    (ratio,) = document["ratios"]
    assert ratio["to"] == "peer"
    assert ratio["bytes_per_second"]["rounds"] == [2.0, 4.0, 1.0]
    assert ratio["bytes_per_second"]["median"] == 2.0
    assert ratio["cpu_seconds_per_gib"]["low"] == 0.25


def test_contenders_take_turns_and_the_first_round_may_be_left_out() -> None:
    seen: list[str] = []

    def run(name: str) -> Any:
        return lambda: seen.append(name) or Turn(1, 1, 1.0, 1.0)

    contenders = [Contender("one", run("one")), Contender("two", run("two"))]
    race(contenders, 2)
    assert seen == ["one", "two"] * 3
    assert [len(contender.rounds) for contender in contenders] == [2, 2]


def test_a_failing_peer_drops_out_and_is_told() -> None:
    calls = 0

    def fail() -> Turn:
        nonlocal calls
        calls += 1
        raise PeerError("it broke")

    document = raced(Contender("stoker", turns(1.0, 1.0, 1.0)), Contender("peer", fail))
    assert calls == 1
    assert [entry["name"] for entry in document["contenders"]] == ["stoker"]
    assert document["missing"] == {"other": "other is not installed", "peer": "it broke"}
    text = markdown(document)
    assert "Not measured: peer: it broke." in text
    assert "Not measured: other: other is not installed." in text


def test_markdown_marks_the_ceiling_and_shows_the_spread() -> None:
    text = markdown(raced(Contender("stoker", turns(1.0, 2.0, 4.0)), Contender("peer", turns(1.0, 1.0, 1.0))))
    assert "| peer (ceiling) | 1.00 GiB/s |" in text
    assert "256.00 MiB/s … 1.00 GiB/s" in text
    assert "| 50 % |" in text
    assert "0.50 (0.25 … 1.00)" in text


def test_series_tells_medians_and_extremes() -> None:
    series = Series("a/series", "files", ("seconds", "peak_bytes"))
    for seconds in (1.0, 3.0, 2.0):
        series.add("1,000", seconds=seconds, peak_bytes=2048)
    assert "| 1,000 | 2 (1 … 3) | 2.00 KiB (2.00 KiB … 2.00 KiB) |" in markdown(series.document())


def document_of(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"rows": {"a": {"entries": list(entries)}}}


def goal(start: str) -> Any:
    return next(goal for goal in GOALS if goal.text.startswith(start))


def reads(key: str, ratio: float) -> dict[str, Any]:
    ours, fio = Contender("stoker", turns(1.0)), Contender("fio io_uring", turns(ratio))
    race([ours, fio], 1, warm_rounds=0)
    return Contest(key, [ours, fio]).document()


@pytest.mark.parametrize(("ratio", "status"), [(0.96, "reached"), (0.94, "not reached")])
def test_a_goal_is_judged_by_the_worst_of_its_rows(ratio: float, status: str) -> None:
    found = judge(
        goal("O_DIRECT reads"),
        document_of(
            reads("reads/direct/random/1 MiB/depth 32", 2.0), reads("reads/direct/random/128 KiB/depth 32", ratio)
        ),
    )
    assert found.status == status
    assert "128 KiB" in found.told


def test_a_goal_without_its_peer_says_which_command_mends_it() -> None:
    ours = Contender("stoker", turns(1.0))
    race([ours], 1, warm_rounds=0)
    entry = Contest(
        "reads/direct/random/1 MiB/depth 32",
        [ours],
        missing={"fio io_uring": "fio is not installed: apt-get install fio"},
    )
    found = judge(goal("O_DIRECT reads"), document_of(entry.document()))
    assert found == (goal("O_DIRECT reads").text, "not measured", "fio is not installed: apt-get install fio")


def test_a_goal_is_not_measured_where_ours_failed_in_one_of_its_rows() -> None:
    def fail() -> Turn:
        raise PeerError("ours broke")

    key = "reads/direct/random/128 KiB/depth 32"
    broken = Contest(key, [Contender("stoker", fail), Contender("fio io_uring", turns(1.0))])
    race(broken.contenders, 1, warm_rounds=0)
    document = document_of(reads("reads/direct/random/1 MiB/depth 1", 2.0), broken.document())
    assert judge(goal("O_DIRECT reads"), document)[1:] == ("not measured", f"{key}: ours broke")


def test_every_goal_of_an_empty_table_is_not_measured() -> None:
    assert {judge(goal, {"rows": {}}).status for goal in GOALS} == {"not measured"}


def test_goals_on_time_and_memory_are_upper_bounds() -> None:
    series = Series("growth/plan 10,000,000 samples over 1,024 ranks", "ranks", ("seconds", "peak_bytes"))
    series.add("all 1,024", seconds=2.0, peak_bytes=50 * 2**20)
    document = document_of(series.document())
    assert judge(goal("plan for all 1,024 ranks: below 1 s"), document).status == "not reached"
    assert judge(goal("plan for all 1,024 ranks: below 256 MiB"), document).status == "reached"


def test_missing_peers_are_told_with_the_command_that_installs_them(tmp_path: Path) -> None:
    peers = find_peers({"torch": str(tmp_path / "python")}, tmp_path)
    assert peers.python("torch") is None
    assert peers.missing["torch"] == "torch is not installed: scripts/peers.sh torch"
    assert peers.missing["dlio"].endswith("scripts/peers.sh torch")
    assert peers.missing["s3dlio"].endswith("scripts/peers.sh s3dlio")


def test_a_failing_turn_tells_its_last_words() -> None:
    with pytest.raises(PeerError, match=r"stoker_epoch ended with 1: KeyError: 'spec'"):
        run_turn(Conditions(Path(), Peers({})).python, "stoker_epoch", {})


def test_scratch_folders_are_removed_and_a_full_disk_is_refused(tmp_path: Path) -> None:
    conditions = Conditions(tmp_path, Peers({}))
    with conditions.folder(1) as folder:
        (folder / "file").touch()
    assert not list(tmp_path.iterdir())
    with pytest.raises(NoSpaceError), conditions.folder(1 << 60):
        pass


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["--only", "a,z"])
    assert "no such row: z" in capsys.readouterr().err


def test_the_command_writes_both_files_and_keeps_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Conditions) -> list[Contest]:
        ours, peer = Contender("stoker", turns(1.0)), Contender("peer", turns(2.0))
        race([ours, peer], 1, warm_rounds=0)
        return [Contest("made/contest", [ours, peer], "peer")]

    def broken(_: Conditions) -> list[Contest]:
        raise PeerError("no such command")

    rows = {"a": table.Row("Made up", run, "What it is."), "b": table.Row("Broken", broken, "")}
    monkeypatch.setattr(table, "ROWS", rows)
    monkeypatch.setattr("benchmarks.__main__.ROWS", rows)
    main(["--quick", "--only", "a", "--out", str(tmp_path)])
    main(["--quick", "--only", "b", "--out", str(tmp_path), "--keep-rows"])
    document = json.loads((tmp_path / "table.json").read_text())
    assert list(document["rows"]) == ["a", "b"]
    assert document["machine"]["cpus"]
    page = (tmp_path / "table.md").read_text()
    assert "### made/contest" in page
    assert "Not measured: no such command." in page
    assert "`python -m benchmarks --quick --only a`, 3 rounds" in page
    assert str(tmp_path) not in page


def test_figures_are_those_of_our_first_contender_however_many_there_are() -> None:
    ours, other, peer = (
        Contender(name, turns(n, n, n)) for name, n in (("stoker", 1.0), ("stoker, slowly", 4.0), ("peer", 8.0))
    )
    document = raced(ours, other, peer)
    assert [(item["ours"], item["to"]) for item in of_ours(document)] == [
        ("stoker", "stoker, slowly"),
        ("stoker", "peer"),
    ]
    table = {"rows": {"a": {"entries": [document]}}}
    assert ratios("a/contest", "peer", "bytes_per_second")(table) == (8.0, "a/contest against peer")


def test_a_kept_row_tells_the_machine_it_was_measured_on() -> None:
    row = {
        "title": "T",
        "what": "W",
        "command": "c",
        "utc": "u",
        "rounds": 1,
        "seconds": 1.0,
        "failed": "",
        "entries": [],
    }
    before = {"machine": {"cpu": "one"}, "rows": {"a": row, "b": {**row, "machine": {"cpu": "two"}}}}
    kept = table.kept_rows(before)
    assert [kept[letter]["machine"]["cpu"] for letter in "ab"] == ["one", "two"]
    now = {"machine": {"cpu": "two"}}
    assert table.elsewhere(now, kept["a"]) == "Measured on another machine: cpu one."
    assert table.elsewhere(now, kept["b"]) == ""
