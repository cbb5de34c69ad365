"""A configuration as a tree: mappings of names to mappings or leaves; each leaf knows where it was written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

DEFAULT: Final = "default"
SHIPPED: Final = "shipped"
FILE: Final = "file"
OVERRIDE: Final = "override"


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from: `kind` is default, shipped, file or override; `where` is `name.yaml:12` or the word."""

    kind: str = DEFAULT
    where: str = ""


class Leaf(msgspec.Struct, frozen=True):
    """A scalar, or a list of plain data. `text` is the scalar as written, since `off` may mean False or `off`.

    `under` is the leaf that this one was put over, which no longer counts.
    """

    value: Any
    origin: Origin = Origin()
    text: str = ""
    under: "Leaf | None" = None

    def over(self, below: "Node | None") -> "Leaf":
        """Return this leaf, remembering what it was put over."""
        return msgspec.structs.replace(self, under=below) if isinstance(below, Leaf) else self


Node: TypeAlias = Leaf | dict[str, "Node"]
Tree: TypeAlias = dict[str, Node]
Path: TypeAlias = tuple[str, ...]


def find(tree: Tree, path: Sequence[str]) -> Node | None:
    """Return the node at `path`, None when there is none."""
    node: Node = tree
    for name in path:
        if not isinstance(node, dict) or name not in node:
            return None
        node = node[name]
    return node


def put(tree: Tree, path: Sequence[str], node: Node) -> None:
    """Set the node at `path`, making the mappings above it; mappings are merged, a leaf in the way is replaced."""
    place = tree
    for name in path[:-1]:
        below = place.get(name)
        if not isinstance(below, dict):
            below = {}
            place[name] = below
        place = below
    present = place.get(path[-1])
    place[path[-1]] = _over(node, present)


def remove(tree: Tree, path: Sequence[str]) -> None:
    """Remove the node at `path`, which must exist."""
    parent = find(tree, path[:-1])
    assert isinstance(parent, dict)
    del parent[path[-1]]


def merged(base: Tree, top: Tree) -> Tree:
    """Return both trees as one; where both have a leaf, or only one a mapping, `top` wins."""
    result = copied(base)
    for name, node in top.items():
        below = result.get(name)
        result[name] = _over(node, below)
    return result


def _over(node: Node, below: Node | None) -> Node:
    """Return what counts where `node` is put over `below`."""
    if isinstance(node, dict):
        return merged(below, node) if isinstance(below, dict) else node
    return node.over(below)


def copied(tree: Tree) -> Tree:
    """Return a copy whose mappings may be changed."""
    return {name: copied(node) if isinstance(node, dict) else node for name, node in tree.items()}


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Yield (path, leaf) for every leaf, in the order of writing."""
    for name, node in tree.items():
        if isinstance(node, dict):
            yield from leaves(node, (*path, name))
        else:
            yield (*path, name), node


def plain(node: Node) -> Any:
    """Return the node as plain data, without origins."""
    return {name: plain(below) for name, below in node.items()} if isinstance(node, dict) else node.value


def planted(data: Any, origin: Origin) -> Node:
    """Return plain data as a node, every leaf with `origin`."""
    if isinstance(data, Mapping):
        return {str(name): planted(below, origin) for name, below in data.items()}
    return Leaf(data, origin, data if isinstance(data, str) else "")
