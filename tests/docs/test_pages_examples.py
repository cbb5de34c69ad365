"""The programs in `examples/` run, print what they say, and are named in a guide."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PRINTED = {
    "pages_quickstart.py": [
        "read back: Hello, pages",
        "pages: 1, bytes: 16, commits: 2",
        "from the checkpoint: Hello, pages",
    ],
    "pages_tutorial.py": [
        "2 pages made anew; derived: 'second', monitor: '6 letters: second'",
        "source at epoch 1: first",
        "writes by the tutorial: 3",
        "replay equals the pages: True",
    ],
    "pages_weights.py": ["version 5: 400400 bytes of weights", "2 workers have the trainer's weights: True"],
    "pages_workers.py": ["counter: 600", "epoch: 600", "the log gives the page: True"],
}


def examples() -> list[Path]:
    return sorted((REPO / "examples").glob("pages_*.py"))


def test_every_example_is_checked_here() -> None:
    assert [path.name for path in examples()] == sorted(PRINTED)


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_example_runs_and_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in PRINTED[path.name]:
        assert text in done.stdout, f"{path.name} did not print {text!r}:\n{done.stdout}"
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_example_is_named_in_a_guide(path: Path) -> None:
    guides = "".join(page.read_text() for page in (REPO / "docs" / "guide").glob("pages*.md"))
    assert f"examples/{path.name}" in guides
