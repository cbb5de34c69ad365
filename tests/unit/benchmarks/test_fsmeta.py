"""The benchmark of the file system's metadata runs, small, and its table tells of every contender."""

from pathlib import Path

from benchmarks.fsmeta import (
    ENGINES,
    GOAL_CREATES_PER_SECOND,
    GROUPS,
    Rates,
    document_of,
    markdown,
    one_round,
    sync_seconds,
)


def test_a_small_round_measures_every_contender(tmp_path: Path) -> None:
    rates: Rates = {}
    one_round(tmp_path, 128, rates)
    document = document_of(rates, "python -m benchmarks.fsmeta", [sync_seconds(tmp_path)])
    names = [row["what"] for row in document["rows"]]
    assert len(names) == len(set(names)) == len(ENGINES) * (2 * len(GROUPS) + 5)
    assert all(row["per_second"] > 0 for row in document["rows"])
    assert not list(tmp_path.iterdir()), "a benchmark leaves nothing behind"
    text = markdown(document)
    assert all(f"| {name} |" in text for name in names)


def test_the_goal_is_judged_by_durable_creates_alone() -> None:
    slow = {"lmdb: creates in groups of 1": [GOAL_CREATES_PER_SECOND - 1.0], "lmdb: lookups": [1e6]}
    assert not document_of(slow, "", [0.001])["goal"]["reached"]
    assert document_of({"sqlite: creates by 64 threads": [GOAL_CREATES_PER_SECOND + 1.0]}, "", [0.001])["goal"][
        "reached"
    ]
    assert "not reached" in markdown(document_of(slow, "", [0.001]))
