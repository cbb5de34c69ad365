"""From a composed workload to a resolved one: values typed, origins kept, and every key that does nothing told."""

from typing import Final

import msgspec

from stoker.bench.run.dlio.checks import check
from stoker.bench.run.dlio.composing import Composition
from stoker.bench.run.dlio.config import DlioConfig, Problem, Resolved
from stoker.bench.run.dlio.dialects import framework_block_keys, translate
from stoker.bench.run.dlio.keys import TABLE
from stoker.bench.run.dlio.schema import HONOURED, INERT, NOT_RUN, NOTED, Key
from stoker.bench.run.dlio.tree import DEFAULT, Leaf, Origin, Tree, copied, find, leaves
from stoker.bench.run.dlio.typed import convert, place
from stoker.core.errors import UsageError

PROBLEMS_TOLD_MAX: Final = 20
_STORAGE_OPTIONS: Final = (
    *("access_key_id", "secret_access_key", "session_token", "endpoint_url", "region"),
    *("s3_max_attempts", "storage_library", "uri_scheme"),
)
_IDLE_STORAGE_OPTIONS: Final = ("s3_force_path_style", "prefetch_workers", "simulate_io")


def resolve(composition: Composition, *, strict: bool = False) -> DlioConfig:
    """Return the typed configuration of a composed workload.

    Raises UsageError for a value of the wrong type, and, when strict, for every unknown, misspelt or ineffective key.
    """
    tree = copied(composition.workload)
    dialect, told = translate(tree, wrapped=composition.wrapped)
    _refuse_bare_sections(tree)
    values = {row.path: _resolved(row, tree) for row in TABLE.rows}
    plain = DlioConfig(
        name=composition.name,
        composition=composition,
        values=values,
        dialect=dialect,
        problems=(*_strangers(tree), *_without_effect(values), *_hydra_strangers(composition.hydra)),
        notes=(*composition.notes, *told, *_noted(values)),
    )
    config = msgspec.structs.replace(plain, problems=(*plain.problems, *check(plain)))
    if strict:
        refuse_problems(config.problems)
    return config


def refuse_problems(problems: tuple[Problem, ...]) -> None:
    """Raise UsageError that names all of them, when there are any."""
    if not problems:
        return
    told = [str(problem) for problem in problems[:PROBLEMS_TOLD_MAX]]
    rest = len(problems) - len(told)
    more = f"; and {rest} more" if rest > 0 else ""
    raise UsageError(f"configuration is not strictly right: {'; '.join(told)}{more}")


def _resolved(row: Key, tree: Tree) -> Resolved:
    node = find(tree, row.path.split("."))
    if node is None or node == {}:
        return Resolved(row.default, Origin())
    if isinstance(node, Leaf) and node.value is None:
        return Resolved(row.default, node.origin)
    value = convert(row, node)
    first = next((leaf for _, leaf in leaves(node)), Leaf(None)) if isinstance(node, dict) else node
    return Resolved(value, first.origin)


def _refuse_bare_sections(tree: Tree) -> None:
    """Raise UsageError where a section holds a single value instead of keys; an empty section is none."""
    sections = {row.path.rpartition(".")[0] for row in TABLE.rows if "." in row.path}
    for section in sorted(sections):
        node = find(tree, section.split("."))
        if isinstance(node, Leaf) and node.value is not None:
            raise UsageError(
                f"{section} at {place(node)} is no good", expected="a section of keys", got=repr(node.value)
            )


def _strangers(tree: Tree) -> list[Problem]:
    """Return the keys that nothing here knows: misspelt ones and unknown ones, each with its nearest neighbour."""
    problems = [
        Problem("no_effect", path, where, f"{path} has no effect: the loader here is our own")
        for path, where in framework_block_keys(tree)
    ]
    blocks = {problem.path for problem in problems}
    sections = {row.path.rpartition(".")[0] for row in TABLE.rows}
    for parts, leaf in leaves(tree):
        path = ".".join(parts)
        if path in blocks or (leaf.value is None and path in sections):
            continue
        owner = TABLE.owner(parts)
        if owner is None:
            problems.append(_stranger(path, leaf.origin.where))
        elif owner.path == "storage.storage_options":
            problems += _storage_option(path, leaf)
    return problems


def _storage_option(path: str, leaf: Leaf) -> list[Problem]:
    """Return what is to be told about one storage option: that it is unknown, or does nothing here."""
    name = path.rpartition(".")[2]
    if name in _STORAGE_OPTIONS or (name in _IDLE_STORAGE_OPTIONS and not leaf.value):
        return []
    if name in _IDLE_STORAGE_OPTIONS:
        return [Problem("not_run", path, leaf.origin.where, f"{path} has no effect: the client here is our own")]
    known = ", ".join((*_STORAGE_OPTIONS, *_IDLE_STORAGE_OPTIONS))
    return [Problem("unknown", path, leaf.origin.where, f"unknown storage option {name!r} is ignored; known: {known}")]


def _stranger(path: str, where: str) -> Problem:
    close = TABLE.suggestion(path)
    kind = "misspelt" if path in TABLE.misspellings else "unknown"
    hint = f"; did you mean {close!r}?" if close else ""
    return Problem(kind, path, where, f"unknown key {path!r} is ignored, as DLIO ignores it{hint}")


def _without_effect(values: dict[str, Resolved]) -> list[Problem]:
    """Return the known keys that were given and do nothing: in DLIO itself, or in this version."""
    problems = []
    for row in TABLE.rows:
        resolved = values[row.path]
        idle = row.when and not (row.when == "checkpoint" and values["workflow.checkpoint"].value)
        if idle or row.effect in (HONOURED, NOTED):
            continue
        if resolved.origin.kind == DEFAULT or resolved.value == row.default:
            continue
        kind, why = {
            INERT: ("no_effect", "DLIO reads this key and never uses it"),
            NOT_RUN: ("not_run", "this version does not do that"),
        }[row.effect]
        problems.append(
            Problem(kind, row.path, resolved.origin.where, f"{row.path} ({row.meaning}) has no effect: {why}")
        )
    return problems


def _hydra_strangers(hydra: Tree) -> list[Problem]:
    """Return Hydra's own settings that were given and steer nothing here."""
    known = (("run", "dir"), ("sweep", "dir"), ("sweep", "subdir"), ("output_subdir",))
    return [
        Problem(
            "no_effect", ".".join(("hydra", *path)), leaf.origin.where, f"hydra.{'.'.join(path)} has no effect here"
        )
        for path, leaf in leaves(hydra)
        if path not in known
    ]


def _noted(values: dict[str, Resolved]) -> list[str]:
    """Return one note on the keys that are accepted while the thing is done here in one way."""
    rows = [row for row in TABLE.rows if row.effect == NOTED and values[row.path].origin.kind != DEFAULT]
    words = [f"{row.path}={values[row.path].value}" for row in rows]
    return [f"accepted, and done by the loader here in its own way: {', '.join(words)}"] if words else []
