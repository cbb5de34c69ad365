"""From the words of a command line to composed workloads: files found, merged, overridden, interpolated."""

import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from stoker.bench.run.dlio.overrides import GROUP, CommandLine, Override, expand_sweep, parse_words
from stoker.bench.run.dlio.shipped import load_shipped, shipped_names
from stoker.bench.run.dlio.tree import OVERRIDE, Leaf, Node, Origin, Tree, copied, find, merged, planted, put, remove
from stoker.bench.run.dlio.values import parse_value
from stoker.bench.run.dlio.yaml_text import load_file
from stoker.core.errors import UsageError
from stoker.core.files import check_key, is_secret_name
from stoker.core.registry import nearest

DEFAULT_WORKLOAD: Final = "default"
INHERIT_DEPTH_MAX: Final = 8
_INTERPOLATION: Final = re.compile(r"\$\{([^{}]*)\}")
_INTERPOLATION_ROUNDS: Final = 16
_INTERPOLATED_MAX: Final = 1 << 20

_HYDRA: Final[dict[str, Any]] = {
    "run": {"dir": "./hydra_log/${workload.model.name}/${now:%Y-%m-%d}-${now:%H-%M-%S}"},
    "sweep": {"dir": "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}", "subdir": "${hydra.job.num}"},
    "output_subdir": ".hydra",
}


class Composition(msgspec.Struct, frozen=True):
    """One run's configuration as text has it: `workload` and `hydra` trees, the override words (secrets hidden), the
    number of the run in a sweep (-1 when there is none), and what is to be told about the composing."""

    name: str
    workload: Tree
    hydra: Tree
    overrides: tuple[str, ...] = ()
    sweep_number: int = -1
    wrapped: bool = True
    notes: tuple[str, ...] = ()


class _Found(msgspec.Struct):
    """A workload as found: its tree, Hydra's settings that came with it, and remarks."""

    workload: Tree
    hydra: Tree
    notes: list[str]
    wrapped: bool = True


def compose(words: Sequence[str]) -> list[Composition]:
    """Return the composed runs of a DLIO command line: one, or several with --multirun.

    Raises UsageError, with file and line or the word, for anything that cannot be read or found.
    """
    line = parse_words(words)
    runs = expand_sweep(line)
    return [_compose_run(line, overrides, number) for number, overrides in enumerate(runs)]


def _compose_run(line: CommandLine, overrides: tuple[Override, ...], number: int) -> Composition:
    chosen = [override for override in overrides if override.action == "choose"]
    names = [override.value.strip("'\"") for override in chosen if override.path == (GROUP,)]
    found, name = _start(line, names[-1] if names else "")
    found.notes += [
        f"{override.word!r} has no effect: this program has its own logging and help"
        for override in chosen
        if override.path != (GROUP,)
    ]
    root: Tree = {"workload": found.workload, "hydra": merged(_hydra_defaults(), found.hydra)}
    for override in overrides:
        if override.action != "choose":
            apply_override(root, override)
    workload, hydra = root["workload"], root["hydra"]
    if not isinstance(workload, dict) or not isinstance(hydra, dict):
        raise UsageError(
            "override replaces a whole section by a value", expected="for example ++workload.train.epochs=2"
        )
    return Composition(
        name=name,
        workload=interpolated(workload, root),
        hydra=hydra,
        overrides=tuple(override.safe_word for override in overrides),
        sweep_number=number if line.multirun else -1,
        wrapped=found.wrapped,
        notes=tuple(found.notes),
    )


def _hydra_defaults() -> Tree:
    tree = planted(_HYDRA, Origin())
    assert isinstance(tree, dict)
    return tree


def _start(line: CommandLine, name: str) -> tuple[_Found, str]:
    """Return what the files say before any override, and the workload's name."""
    if line.file:
        if name or line.config_name:
            raise UsageError("both a file and a name are given", where=line.file, expected="one of the two")
        found = _unwrapped(load_file(FilePath(line.file)), _Finder(line.config_dir), 0)
        return found, FilePath(line.file).stem
    finder = _Finder(line.config_dir)
    if not line.config_name or line.config_name.removesuffix(".yaml") == "config":
        return finder.workload(name or DEFAULT_WORKLOAD, 0), name or DEFAULT_WORKLOAD
    return _root_config(finder, line.config_name, name)


def _root_config(finder: "_Finder", config_name: str, name: str) -> tuple[_Found, str]:
    """Return the start that `--config-name` asks for: a root file of the configuration folder."""
    tree = finder.root(config_name)
    choice, own_first = "", True
    for item in _defaults_list(tree):
        if item == "_self_":
            own_first = not choice
        elif isinstance(item, dict) and isinstance(item.get(GROUP), str):
            choice = item[GROUP]
    name = name or choice or DEFAULT_WORKLOAD
    found = finder.workload(name, 0)
    own = tree.get("workload", {})
    hydra = tree.get("hydra", {})
    own_tree = own if isinstance(own, dict) else {}
    found.workload = merged(own_tree, found.workload) if own_first else merged(found.workload, own_tree)
    found.hydra = merged(found.hydra, hydra if isinstance(hydra, dict) else {})
    return found, name


class _Finder:
    """Looks for workload files: first below the user's folder, then among the shipped ones."""

    def __init__(self, config_dir: str) -> None:
        self._folder = FilePath(config_dir) if config_dir else None
        if self._folder is not None and not self._folder.is_dir():
            raise UsageError("configuration folder is missing", where=config_dir, remedy="correct --config-dir")

    def root(self, config_name: str) -> Tree:
        """Return the root file `--config-name` names."""
        name = check_key(config_name.removesuffix(".yaml"))
        if self._folder is None:
            raise UsageError("--config-name needs --config-dir", where=config_name)
        return load_file(self._folder / f"{name}.yaml")

    def workload(self, name: str, depth: int) -> _Found:
        """Return the workload `name`. Raises UnknownNameError, and UsageError for a name that leaves the folder."""
        name = check_key(name.removesuffix(".yaml"))
        file = self._folder / GROUP / f"{name}.yaml" if self._folder is not None else None
        if file is None or not file.is_file():
            return _Found(load_shipped(name), {}, [])
        found = _unwrapped(load_file(file), self, depth)
        found.wrapped = True
        if name in shipped_names():
            found.notes.append(f"workload {name!r} is read from {file}, not from the one that is shipped")
        return found


def _unwrapped(tree: Tree, finder: _Finder, depth: int) -> _Found:
    """Return a file's workload: its `workload:` section or, without one, all of it; its defaults list is followed."""
    base = _Found({}, {}, [])
    own_first = False
    for item in _defaults_list(tree):
        if item == "_self_":
            own_first = not base.workload
            continue
        parent = _inherited_name(item)
        if parent and depth >= INHERIT_DEPTH_MAX:
            raise UsageError("workloads inherit from each other too deeply", where=parent, expected="at most 8 levels")
        if parent:
            above = finder.workload(parent, depth + 1)
            notes = [*base.notes, *above.notes]
            base = _Found(merged(base.workload, above.workload), merged(base.hydra, above.hydra), notes)
    own = {name: node for name, node in tree.items() if name not in ("defaults", "hydra")}
    inner = own.get("workload")
    wrapped = isinstance(inner, dict)
    if isinstance(inner, dict):
        own = inner
    hydra = tree.get("hydra")
    both = merged(own, base.workload) if own_first else merged(base.workload, own)
    return _Found(both, merged(base.hydra, hydra if isinstance(hydra, dict) else {}), base.notes, wrapped)


def _defaults_list(tree: Tree) -> list[Any]:
    """Return the entries of `defaults:`. Raises UsageError when it is no list."""
    node = tree.get("defaults")
    if node is None:
        return []
    if not isinstance(node, Leaf) or not isinstance(node.value, list):
        where = node.origin.where if isinstance(node, Leaf) else ""
        raise UsageError("defaults is not a list", where=where, expected="for example - override hydra/help: ...")
    return node.value


def _inherited_name(item: Any) -> str:
    """Return the workload that an entry of a defaults list inherits from, nothing for Hydra's own groups."""
    if isinstance(item, str):
        return item.removeprefix(f"/{GROUP}/")
    if isinstance(item, dict) and len(item) == 1:
        group, choice = next(iter(item.items()))
        if group.removeprefix("override ").strip().lstrip("/") == GROUP:
            return str(choice or "")
        if "hydra/" in group:
            return ""
    raise UsageError(
        "defaults entry is not understood", where=str(item), expected="a workload or an override of hydra/..."
    )


def apply_override(root: Tree, override: Override) -> None:
    """Change the tree as the word says. Raises UsageError when the key is missing (set, delete) or present (add)."""
    key = ".".join(override.path)
    present = find(root, override.path)
    if override.path[0] not in ("workload", "hydra"):
        close = nearest(override.path[0], ["workload", "hydra"])
        remedy = f"did you mean {close!r}?" if close else f"write workload.{key}"
        raise UsageError("override is outside the workload", where=key, remedy=remedy)
    if len(override.path) == 1:
        raise UsageError("override names a whole tree", where=key, expected=f"for example {key}.train.epochs=2")
    if override.action == "delete":
        _delete(root, override, present)
        return
    if override.action == "set" and present is None:
        raise UsageError("key is not in the workload", where=key, remedy=_set_remedy(root, override))
    if override.action == "add" and present is not None:
        raise UsageError("key is already in the workload", where=key, remedy=f"write ++{key}= to replace it")
    put(root, override.path, planted(_value(override), Origin(OVERRIDE, override.safe_word)))


def _delete(root: Tree, override: Override, present: Node | None) -> None:
    key = ".".join(override.path)
    if present is None:
        raise UsageError("key to delete is not in the workload", where=key)
    if override.valued and (isinstance(present, dict) or present.value != _value(override)):
        raise UsageError("key to delete has another value", where=key, expected=override.value)
    remove(root, override.path)


def _set_remedy(root: Tree, override: Override) -> str:
    parent = find(root, override.path[:-1])
    close = nearest(override.path[-1], list(parent)) if isinstance(parent, dict) else ""
    hint = f"did you mean {close!r}? " if close else ""
    return f"{hint}write ++{'.'.join(override.path)}= to add it"


def _value(override: Override) -> Any:
    if not override.valued:
        raise UsageError("override has no value", where=override.word, expected=f"{override.word}=VALUE")
    try:
        return parse_value(override.value)
    except UsageError as error:
        key = ".".join(override.path)
        if is_secret_name(override.path[-1]):
            raise UsageError("value cannot be read", where=key, remedy="put it into quotes") from None
        raise UsageError(f"{key}: {error}") from error


def interpolated(tree: Tree, root: Tree) -> Tree:
    """Return a copy in which every `${workload.section.key}` stands for that key's value.

    Raises UsageError for a missing or circular key, and for resolvers such as `${oc.env:...}`.
    """
    result = copied(tree)
    _interpolate(result, root)
    return result


def _interpolate(tree: Tree, root: Tree) -> None:
    for name, node in tree.items():
        if isinstance(node, dict):
            _interpolate(node, root)
        elif _needs(node.value):
            tree[name] = Leaf(_resolved(node.value, root, node.origin.where), node.origin, under=node.under)


def _needs(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_needs(item) for item in value)
    if isinstance(value, dict):
        return any(_needs(item) for item in value.values())
    return isinstance(value, str) and "${" in value


def _resolved(value: Any, root: Tree, where: str) -> Any:
    if isinstance(value, list):
        return [_resolved(item, root, where) for item in value]
    if isinstance(value, dict):
        return {name: _resolved(item, root, where) for name, item in value.items()}
    for _ in range(_INTERPOLATION_ROUNDS):
        match = _INTERPOLATION.search(value) if isinstance(value, str) else None
        if match is None:
            return value
        found = _looked_up(match[1].strip(), root, where)
        value = found if match[0] == value else value[: match.start()] + str(found) + value[match.end() :]
        if isinstance(value, str) and len(value) > _INTERPOLATED_MAX:
            raise UsageError("interpolation grows without end", where=where)
    raise UsageError("interpolation does not end", where=where, expected=f"at most {_INTERPOLATION_ROUNDS} references")


def _looked_up(reference: str, root: Tree, where: str) -> Any:
    if ":" in reference or reference.startswith("."):
        what = "interpolation is not supported" if ":" not in reference else "resolver is not supported"
        raise UsageError(what, where=f"${{{reference}}} at {where}", expected="${workload.section.key}")
    path = reference.split(".")
    node = find(root, path) or find(root, ["workload", *path])
    if not isinstance(node, Leaf):
        raise UsageError("interpolation names no value", where=f"${{{reference}}} at {where}")
    return node.value
