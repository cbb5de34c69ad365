"""The house holds: sizes of files and functions, banned calls, docstrings, text that speaks of the project alone."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPO / "src").rglob("*.py"))
FILE_LINES_MAX = 500
BODY_LINES_MAX = 60
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPO, capture_output=True, check=True, text=True
    ).stdout
    suffixes = {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".j2", ".css", ".js", ".json", ".lock", ""}
    return [
        REPO / name for name in listed.split("\0") if name and Path(name).suffix in suffixes and (REPO / name).is_file()
    ]


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO / "src")))
def test_file_keeps_the_house_rules(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= FILE_LINES_MAX, f"{path}: over {FILE_LINES_MAX} lines"
    assert ast.get_docstring(tree), f"{path}: no module docstring"
    for function in functions(tree):
        assert body_lines(function) <= BODY_LINES_MAX, f"{path}:{function.lineno} {function.name} is too long"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{path}: allow_pickle"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not BANNED_MODULES & {name.split(".")[0] for name in names}, f"{path} imports {names}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO / "src")))
def test_public_functions_have_docstrings(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


def test_text_speaks_of_the_project_alone() -> None:
    machine_path = re.compile(r"/(?:work|root)/|/home/(?!user\b)\w+/")
    for path in tracked_text_files():
        if path == Path(__file__):
            continue
        found = machine_path.search(path.read_text(errors="replace"))
        assert not found, f"{path}: {found.group()}"


def test_this_suite_notices_a_breach(tmp_path: Path) -> None:
    long_function = "def f():\n" + "    x = 1\n" * (BODY_LINES_MAX + 1)
    assert body_lines(functions(ast.parse(long_function))[0]) > BODY_LINES_MAX
