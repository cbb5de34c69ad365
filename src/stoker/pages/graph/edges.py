"""Who depends on whom: an acyclic graph of pages, kept in order as edges come and go.

Every node has a height, larger than that of its parents. An edge that points upwards costs nothing to accept. Another
one raises what lies above the child, or lowers what lies below the parent, whichever is less work: both are tried in
turn. When either meets the other end, the way it came is the cycle, and the edge is refused.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Final

import xxhash

from stoker.pages.errors import CycleError, FormatError

RECORD: Final = struct.Struct("<QQBB6x")
HEADER: Final = struct.Struct("<8sQ")
MAGIC: Final = b"STKGRAPH"
_ADD, _REMOVE = 1, 2


class EdgeKind(IntEnum):
    """What a change of the parent means to the child."""

    DATA = 0
    CONTROL = 1
    DEVICE = 2
    ARTEFACT = 3


Edge = tuple[int, int, int]
"""Parent, child, kind."""


class DependencyGraph:
    """Edges between pages. All orders are the same every time: ties go by id.

    version  counts changes
    touched  nodes whose height or children changed, until who follows the graph clears it
    """

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._children: dict[int, dict[tuple[int, int], None]] = {}
        self._parents: dict[int, dict[tuple[int, int], None]] = {}
        self._height: dict[int, int] = {}
        self._lowest = self._highest = 0
        self.version = 0
        self.touched: dict[int, None] = {}
        for edge in edges:
            self.add(*edge)

    # -- changing ------------------------------------------------------------------------------------------------

    def add(self, parent: int, child: int, kind: int = EdgeKind.DATA) -> bool:
        """Add an edge; tell whether it is new. Raises CycleError, with the cycle in `path`."""
        if self.has(parent, child, kind):
            return False
        if parent == child:
            raise _cycle([child, child])
        self._height.setdefault(parent, 0)
        self._height.setdefault(child, self._height[parent] + 1)
        if self._height[child] <= self._height[parent]:
            self._order_anew(parent, child)
        self._children.setdefault(parent, {})[child, kind] = None
        self._parents.setdefault(child, {})[parent, kind] = None
        self._changed(parent, child)
        return True

    def _changed(self, *nodes: int) -> None:
        self.version += 1
        for node in nodes:
            self.touched[node] = None

    def _order_anew(self, parent: int, child: int) -> None:
        """Give heights so that the child is higher; all or nothing. Raises CycleError."""
        raising = self._moved(child, self._height[parent] + 1, parent, self._children, 1)
        lowering = self._moved(parent, self._height[child] - 1, child, self._parents, -1)
        while True:
            moved = next(raising) or next(lowering)
            if moved:
                break
        self._height.update(moved)
        self.touched.update(dict.fromkeys(moved))
        self._lowest = min(self._lowest, *moved.values())
        self._highest = max(self._highest, *moved.values())
        if self._highest - self._lowest > 4 * len(self._height) + 1024:
            self._level()

    def _moved(
        self, start: int, height: int, forbidden: int, ways: Mapping[int, Mapping[tuple[int, int], None]], sign: int
    ) -> Iterator[dict[int, int]]:
        """Yield nothing after each step, at the end the heights that nodes get when one of them gets `height`."""
        moved = {start: height}
        came_from: dict[int, int] = {}
        waiting = [start]
        while waiting:
            at = waiting.pop()
            least = moved[at] + sign
            for other, _ in ways.get(at, ()):
                yield {}
                if sign * (least - moved.get(other, self._height[other])) <= 0:
                    continue
                came_from[other] = at
                if other == forbidden:
                    way = _way(came_from, start, forbidden)
                    raise _cycle([*way, way[0]] if sign > 0 else [*way[::-1], way[-1]])
                moved[other] = least
                waiting.append(other)
        while True:
            yield moved

    def _level(self) -> None:
        """Give all nodes their least height: long churn makes heights drift apart."""
        exact: dict[int, int] = {}
        for node in self.order():
            exact[node] = max((exact[parent] + 1 for parent, _ in self._parents.get(node, ())), default=0)
        self.touched.update(dict.fromkeys(node for node, height in exact.items() if height != self._height[node]))
        self._height = exact
        self._lowest, self._highest = 0, max(exact.values(), default=0)

    def add_all(self, edges: Iterable[Edge]) -> int:
        """Add edges, all or none, and return how many are new. Raises CycleError."""
        added: list[Edge] = []
        try:
            for edge in edges:
                if self.add(*edge):
                    added.append(edge)
        except CycleError:
            for edge in added:
                self.remove(*edge)
            raise
        return len(added)

    def remove(self, parent: int, child: int, kind: int = EdgeKind.DATA) -> bool:
        """Remove an edge; tell whether it was there. Heights may stay higher than they need be: order holds."""
        if not self.has(parent, child, kind):
            return False
        del self._children[parent][child, kind]
        del self._parents[child][parent, kind]
        self._changed(parent)
        return True

    def forget(self, node: int) -> list[Edge]:
        """Remove a node's edges and return them."""
        gone = [(parent, node, kind) for parent, kind in self._parents.get(node, {})]
        gone += [(node, child, kind) for child, kind in self._children.get(node, {})]
        for edge in gone:
            self.remove(*edge)
        self._height.pop(node, None)
        self._children.pop(node, None)
        self._parents.pop(node, None)
        self.touched.pop(node, None)
        return gone

    # -- looking -------------------------------------------------------------------------------------------------

    def has(self, parent: int, child: int, kind: int | None = None) -> bool:
        """Tell whether there is an edge, of a kind or of any."""
        found = self._children.get(parent, {})
        kinds = EdgeKind if kind is None else (kind,)
        return any((child, int(one)) in found for one in kinds)

    def height(self, node: int) -> int:
        """Return a height: larger than that of every ancestor."""
        return self._height.get(node, 0)

    def children(self, node: int, kind: int | None = None) -> list[int]:
        """Return the nodes that depend on this one, by kind of edge when asked, in the order of their ids."""
        return sorted({child for child, one in self._children.get(node, {}) if kind is None or one == kind})

    def has_children(self, node: int) -> bool:
        """Tell whether anything depends on this node."""
        return bool(self._children.get(node))

    def parents(self, node: int, kind: int | None = None) -> list[int]:
        """Return the nodes that this one depends on, in the order in which the edges were added."""
        found = (parent for parent, one in self._parents.get(node, {}) if kind is None or one == kind)
        return list(dict.fromkeys(found))

    def nodes(self) -> list[int]:
        """Return all nodes that have or had an edge."""
        return sorted(self._height)

    def edges(self) -> list[Edge]:
        """Return all edges, sorted."""
        return sorted((parent, child, kind) for parent, found in self._children.items() for child, kind in found)

    def descendants(self, *nodes: int) -> set[int]:
        """Return all that depend on these nodes, however far."""
        return _reach(nodes, self._children)

    def ancestors(self, *nodes: int) -> set[int]:
        """Return all that these nodes depend on, however far."""
        return _reach(nodes, self._parents)

    def closure(self) -> dict[int, set[int]]:
        """Return for each node all that depend on it, however far: as large as the square of the nodes at worst."""
        found: dict[int, set[int]] = {}
        for node in reversed(self.order()):
            below = {child for child, _ in self._children.get(node, ())}
            found[node] = below.union(*(found[child] for child in below))
        return found

    def reverse_post_order(self, *starts: int) -> list[int]:
        """Return what these nodes reach (all, when none are told) in reverse post-order of a depth-first search."""
        done: set[int] = set()
        post: list[int] = []
        for start in reversed(starts or tuple(self.nodes())):
            stack = [(start, iter(self.children(start)[::-1]))] if start not in done else []
            done.add(start)
            while stack:
                node, children = stack[-1]
                child = next((one for one in children if one not in done), None)
                if child is None:
                    post.append(node)
                    stack.pop()
                else:
                    done.add(child)
                    stack.append((child, iter(self.children(child)[::-1])))
        return post[::-1]

    def order(self, nodes: Iterable[int] | None = None) -> list[int]:
        """Return all nodes, or these, parents before children."""
        return sorted(self._height if nodes is None else nodes, key=lambda node: (self.height(node), node))

    def depth(self) -> int:
        """Return the number of edges on the longest way."""
        exact: dict[int, int] = {}
        for node in self.order():
            exact[node] = max((exact[parent] + 1 for parent, _ in self._parents.get(node, ())), default=0)
        return max(exact.values(), default=0)

    def digest(self) -> str:
        """Return 32 hexadecimal digits, equal for equal sets of edges."""
        whole = xxhash.xxh3_128()
        for edge in self.edges():
            whole.update(RECORD.pack(*edge, 0))
        return whole.hexdigest()


def _reach(nodes: Iterable[int], ways: Mapping[int, Mapping[tuple[int, int], None]]) -> set[int]:
    found: set[int] = set()
    waiting = list(nodes)
    while waiting:
        for other, _ in ways.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _way(came_from: dict[int, int], start: int, end: int) -> list[int]:
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


def _cycle(path: list[int]) -> CycleError:
    shown = path if len(path) <= 12 else [*path[:6], *path[-6:]]
    text = " → ".join(map(str, shown)) if shown == path else " → ".join(map(str, path[:6])) + " … " + str(path[-1])
    error = CycleError("edge would close a cycle", got=text)
    error.path = tuple(path)
    return error


# -- the page that keeps the edges ---------------------------------------------------------------------------------


def encode_record(edge: Edge, *, add: bool) -> bytes:
    """Return the 24 bytes by which an edge comes or goes."""
    return RECORD.pack(*edge, _ADD if add else _REMOVE)


def encode_edges(edges: Iterable[Edge]) -> bytes:
    """Return a whole page's bytes: header and one record an edge."""
    records = [encode_record(edge, add=True) for edge in edges]
    return HEADER.pack(MAGIC, len(records)) + b"".join(records)


def decode_edges(data: bytes) -> Iterator[tuple[Edge, bool]]:
    """Yield edges that came (True) or went. Raises FormatError for bytes that are no such page."""
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise FormatError("page of the graph cannot be read")
    count = HEADER.unpack_from(data)[1]
    if count > (len(data) - HEADER.size) // RECORD.size:
        raise FormatError("page of the graph is shorter than it says", got=f"{count} records")
    for index in range(count):
        parent, child, kind, operation = RECORD.unpack_from(data, HEADER.size + index * RECORD.size)
        if kind > EdgeKind.ARTEFACT or operation not in (_ADD, _REMOVE):
            raise FormatError("page of the graph has an unknown record", got=f"kind {kind}, operation {operation}")
        yield (parent, child, kind), operation == _ADD
