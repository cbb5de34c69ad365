"""Every public name of `stoker.pages` has a docstring, and it names the errors that the code below it raises.

The rule: a public function or method raises what its own body raises, and what private helpers of its module raise that
it calls, one through another. Each of these errors, or a class it derives from, stands in the docstring, or in that of
the class for what making one raises; "Raises as `name`" points to another docstring. What reaches through other modules
is theirs to tell.
"""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from stoker.core.errors import StokerError

ROOM = Path(importlib.import_module("stoker.pages").__file__ or "").parent
INTERNAL = {"arena", "disk.py", "host.py", "images.py", "opening.py", "flushing.py", "folder.py", "commits.py"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[str]:
    paths = [path.relative_to(ROOM) for path in sorted(ROOM.rglob("*.py"))]
    return [".".join(path.with_suffix("").parts) for path in paths if path.parts[0] not in INTERNAL]


def source_of(name: str) -> tuple[ModuleType, ast.Module]:
    dotted = "stoker.pages." + name.removesuffix("__init__").rstrip(".")
    if "triton" in dotted:
        pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    module = importlib.import_module(dotted.rstrip("."))
    return module, ast.parse(inspect.getsource(module))


def called(node: ast.AST) -> set[str]:
    """Names that are called in a body, of functions and of methods of self."""
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            target = one.func
            if isinstance(target, ast.Name):
                found.add(target.id)
            elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
                found.add(target.attr)
    return found


def raised(node: ast.AST, helpers: dict[str, Function]) -> set[str]:
    """Names of the errors that a body raises: classes, or what the helper says it returns. What it catches counts too
    little to be told apart, but a `raise` within `try` of an error that is caught there is rare."""
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call) and isinstance(one.exc.func, ast.Name):
            name = one.exc.func.id
            helper = helpers.get(name)
            found.add(ast.unparse(helper.returns) if helper is not None and helper.returns is not None else name)
    return found


def helpers_of(tree: ast.Module) -> dict[str, Function]:
    found = {node.name: node for node in tree.body if isinstance(node, Function)}
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef):
            found |= {
                node.name: node for node in owner.body if isinstance(node, Function) and node.name.startswith("_")
            }
    return found


def all_raised(node: Function, helpers: dict[str, Function]) -> set[str]:
    """Errors of a body and, through private helpers, of theirs."""
    found, waiting, seen = set(), [node], {node.name}
    while waiting:
        at = waiting.pop()
        found |= raised(at, helpers)
        for name in called(at) - seen:
            if name.startswith("_") and not name.startswith("__") and name in helpers:
                seen.add(name)
                waiting.append(helpers[name])
    return found


def names_of(error: str, module: ModuleType) -> set[str]:
    """The error's name and those of the classes it derives from, down to the first of all."""
    kind = getattr(module, error, None)
    if not (inspect.isclass(kind) and issubclass(kind, StokerError)):
        return set()
    return {base.__name__ for base in kind.__mro__ if issubclass(base, StokerError)} - {"StokerError"}


def untold(where: str, text: str, node: Function, module: ModuleType, helpers: dict[str, Function]) -> list[str]:
    """Say which errors the docstring does not name."""
    if "aises as " in text:
        return []
    missing = []
    for error in sorted(all_raised(node, helpers)):
        names = names_of(error, module)
        if names and not any(name in text for name in names):
            missing.append(f"{where} raises {error}")
    return missing


def wrong_in(name: str) -> list[str]:
    module, tree = source_of(name)
    helpers, wrong = helpers_of(tree), []
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            text = ast.get_docstring(node) or ""
            wrong += [] if text else [f"{node.name} has no docstring"]
            wrong += untold(node.name, text, node, module, helpers)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            wrong += wrong_in_class(node, module, helpers)
    return wrong


def wrong_in_class(owner: ast.ClassDef, module: ModuleType, helpers: dict[str, Function]) -> list[str]:
    whole = ast.get_docstring(owner) or ""
    wrong = [] if whole else [f"{owner.name} has no docstring"]
    mine = helpers | {
        node.name: node for node in owner.body if isinstance(node, Function) and node.name.startswith("_")
    }
    for node in owner.body:
        if not isinstance(node, Function) or (node.name.startswith("_") and node.name != "__init__"):
            continue
        if any(isinstance(one, ast.Attribute) and one.attr == "setter" for one in node.decorator_list):
            continue  # its getter tells
        text = ast.get_docstring(node) or ""
        if node.name == "__init__":
            text += whole
        elif not text:
            wrong.append(f"{owner.name}.{node.name} has no docstring")
        wrong += untold(f"{owner.name}.{node.name}", text, node, module, mine)
    return wrong


@pytest.mark.parametrize("name", modules())
def test_docstrings_name_the_errors(name: str) -> None:
    assert wrong_in(name) == []


def test_everything_that_is_exported_is_told() -> None:
    module = importlib.import_module("stoker.pages")
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name


def test_this_suite_notices_what_is_not_told() -> None:
    module = importlib.import_module("stoker.pages.store")
    tree = ast.parse(
        "def told():\n    '''Raises InvalidDelta.'''\n    _deep()\n"
        "def untold_():\n    '''Nothing.'''\n    _deep()\n"
        "def _deep():\n    raise InvalidDelta('x')\n"
    )
    helpers = helpers_of(tree)
    told, silent = tree.body[0], tree.body[1]
    assert isinstance(told, Function)
    assert isinstance(silent, Function)
    assert untold("told", ast.get_docstring(told) or "", told, module, helpers) == []
    assert untold("untold", ast.get_docstring(silent) or "", silent, module, helpers) == ["untold raises InvalidDelta"]
