"""The benchmark of one disk runs, small, and its tables tell of every contender."""

from pathlib import Path

from benchmarks.fsdisk import PAIRS, Rates, Round, document_of, markdown
from benchmarks.fsmeta import sync_seconds


def test_a_small_round_measures_every_contender(tmp_path: Path) -> None:
    rates: Rates = {}
    cpu: Rates = {}
    one = Round(tmp_path, rates, cpu)
    one.small_puts(16)
    one.large_files(1)
    one.scrub()
    one.close()
    document = document_of(rates, cpu, "python -m benchmarks.fsdisk", [sync_seconds(tmp_path)])
    assert len(document["rows"]) == 11
    assert all(row["per_second"] > 0 for row in document["rows"])
    assert [(each["of"], each["to"]) for each in document["ratios"]] == list(PAIRS)
    text = markdown(document)
    assert all(f"| {row['what']} |" in text for row in document["rows"])
