"""The guide's figures are those of the saved table, and no others."""

import json
from pathlib import Path

from benchmarks.contest import Contest, Series
from benchmarks.harness import Contender, Turn, race
from benchmarks.page import END, NOTHING, START, with_figures

REPO = Path(__file__).resolve().parents[2]


def test_the_page_shows_the_saved_table() -> None:
    page = (REPO / "docs/guide/performance.md").read_text()
    assert page == with_figures(page, REPO / "benchmarks/results"), "run: python -m benchmarks.page"


def test_figures_replace_what_stood_between_the_marks(tmp_path: Path) -> None:
    page = f"before\n{START}\nold\n{END}\nafter\n"
    assert with_figures(page, tmp_path) == f"before\n{START}\n\n{NOTHING}\n\n{END}\nafter\n"
    contenders = [Contender(name, lambda: Turn(2**30, 10, 0.5, 1.0)) for name in ("stoker", "peer")]
    race(contenders, 2, warm_rounds=0)
    series = Series("a/series", "files", ("seconds",))
    series.add("1,000", seconds=2.0)
    entries = [Contest("a/contest", contenders, "peer").document(), series.document()]
    row = {"title": "Rows", "what": "What.", "command": "c", "rounds": 2, "entries": entries}
    head = {"command": "python -m benchmarks", "utc": "2030-01-01T00:00:00Z"}
    document = {**head, "machine": {"cpu": "some"}, "peers": {}, "rows": {"a": row}}
    (tmp_path / "table.json").write_text(json.dumps(document))
    text = with_figures(page, tmp_path)
    assert "| a/contest | stoker | 1.00 GiB/s | 0.500 |  |  |  |" in text
    assert "|  | peer (ceiling) | 1.00 GiB/s | 0.500 |  | 1.00 (1.00 … 1.00) | 1.00 (1.00 … 1.00) |" in text
    assert "| 1,000 | 2 |" in text
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
