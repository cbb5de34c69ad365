"""The benchmark of the file system's client runs, small, and leaves nothing behind."""

from pathlib import Path

import pytest
from benchmarks.fsclient import RATIOS, Rates, document_of, markdown, one_round

from stoker.core.units import MiB


@pytest.mark.slow
def test_a_small_round_measures_every_contender(tmp_path: Path) -> None:
    rates: Rates = {}
    one_round(tmp_path, 8 * MiB, 20, rates)
    document = document_of(rates, "python -m benchmarks.fsclient")
    assert len(document["rows"]) == 9
    assert all(row["per_second"] > 0 for row in document["rows"])
    assert not list(tmp_path.iterdir())
    text = markdown(document)
    assert all(f"- {of} is " in text for of, _ in RATIOS)
