"""The page of requirements names every id, and tests and commands that exist."""

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

from stoker.cli.main import run

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "guide" / "requirements.md"
COUNTS = {"PKG": 3, "BENCH": 5, "TRAIN": 6, "HOST": 5, "UX": 4}
IDS = [f"{family}-{number:02d}" for family, count in COUNTS.items() for number in range(1, count + 1)]


def rows() -> dict[str, list[str]]:
    """Return the cells of each row by its id."""
    found = [
        line.strip("|\n ").split(" | ") for line in PAGE.read_text().splitlines() if re.match(r"\| [A-Z]+-\d", line)
    ]
    return {cells[0].strip(): cells for cells in found}


def named(column: int) -> list[str]:
    """Return what stands in backticks in a column, each once."""
    return sorted({word for cells in rows().values() for word in re.findall(r"`([^`]+)`", cells[column])})


def test_functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


test_functions.__test__ = False  # type: ignore[attr-defined]


def test_every_requirement_has_a_row_with_a_command_and_a_test() -> None:
    assert list(rows()) == IDS
    for cells in rows().values():
        assert len(cells) == 5
        assert len(cells[2]) > 20
        assert "`stoker " in cells[3]
        assert "::test_" in cells[4]


@pytest.mark.parametrize("test", named(4))
def test_each_named_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in test_functions(REPO / path), test


@pytest.mark.parametrize("command", named(3))
def test_each_named_command_exists(command: str) -> None:
    words = command.split()[1:]
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        assert run([*words, "--help"]) == 0
    assert f"Usage: {command}" in heard.getvalue()


def test_a_command_that_is_none_is_noticed() -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        assert run(["plam", "--help"]) != 0
