"""The documentation runs: every `console` and `python` block of every page, in order, in an empty folder.

In a `console` block a line `$ command` is run by bash; the lines after it are what it prints, where `...` stands for
any text. A line `$ command  # exit 3` expects that exit code. Blocks of other languages are only shown.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def commands(block: str) -> list[tuple[str, str]]:
    """Split a console block into (command, expected output)."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


def matches(expected: str, got: str) -> bool:
    """Compare with `...` as a wildcard and runs of blanks as one."""

    def squeeze(text: str) -> str:
        return re.sub(r" ?\n", "\n", re.sub(r"[ \t]+", " ", text)).strip()

    pattern = ".*?".join(re.escape(part) for part in squeeze(expected).split("..."))
    return re.fullmatch(pattern, squeeze(got), re.DOTALL) is not None


def environment(home: Path) -> dict[str, str]:
    """What a page's commands see: our program first on the path, and no settings of who runs the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("MLPSTORAGE_", "MLPERF_"))}
    return {**kept, "PATH": path, "COLUMNS": "110", "NO_COLOR": "1", "XDG_CONFIG_HOME": str(home / ".config")}


def run_console(block: str, folder: Path) -> None:
    for command, expected in commands(block):
        code = int(found.group(1)) if (found := re.search(r"# exit (\d+)\s*$", command)) else 0
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=110
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        if expected.strip():
            assert matches(expected, done.stdout), f"{command}\n--- expected\n{expected}\n--- got\n{done.stdout}"


def run_python(block: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(REPO)))
def test_examples_of_the_page_run(page: Path, tmp_path: Path) -> None:
    for kind, text in blocks(page):
        if kind == "console":
            run_console(text, tmp_path)
        else:
            run_python(text, tmp_path)


def test_a_wrong_example_is_noticed() -> None:
    assert matches("a ... c\n", "a b c\n")
    assert not matches("a ... d\n", "a b c\n")
    assert commands("$ echo hi\nhi\n$ false\n") == [("echo hi", "hi\n"), ("false", "")]
