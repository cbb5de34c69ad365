"""Who depends on whom: an acyclic graph of pages, kept in order as edges come and go.

Every node has a height, one more than its highest parent. An edge that points upwards costs nothing to accept; another
one raises what lies above the child, and is refused when that reaches the parent: the way it came is the cycle.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from heapq import heappop, heappush
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
    """Edges between pages. `version` counts changes. All orders are the same every time: ties go by id."""

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._children: dict[int, dict[tuple[int, int], None]] = {}
        self._parents: dict[int, dict[tuple[int, int], None]] = {}
        self._height: dict[int, int] = {}
        self.version = 0
        for edge in edges:
            self.add(*edge)

    # -- changing ------------------------------------------------------------------------------------------------

    def add(self, parent: int, child: int, kind: int = EdgeKind.DATA) -> bool:
        """Add an edge; tell whether it is new. Raises CycleError, with the cycle in `path`."""
        if self.has(parent, child, kind):
            return False
        if parent == child:
            raise _cycle([child, child])
        below = self.height(parent)
        if self.height(child) <= below:
            self._raise(child, below + 1, parent)
        self._children.setdefault(parent, {})[child, kind] = None
        self._parents.setdefault(child, {})[parent, kind] = None
        self._height.setdefault(parent, 0)
        self._height.setdefault(child, below + 1)
        self.version += 1
        return True

    def _raise(self, node: int, height: int, forbidden: int) -> None:
        """Raise a node and what is above it; all or nothing."""
        raised = {node: height}
        came_from: dict[int, int] = {}
        waiting = [node]
        while waiting:
            at = waiting.pop()
            for child in self.children(at):
                if raised[at] + 1 <= raised.get(child, self._height.get(child, 0)):
                    continue
                came_from[child] = at
                if child == forbidden:
                    raise _cycle(_way(came_from, node, forbidden))
                raised[child] = raised[at] + 1
                waiting.append(child)
        self._height.update(raised)

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
        self.version += 1
        return True

    def forget(self, node: int) -> list[Edge]:
        """Remove a node's edges and return them."""
        gone = [(parent, node, kind) for parent, kind in self._parents.get(node, {})]
        gone += [(node, child, kind) for child, kind in self._children.get(node, {})]
        for edge in gone:
            self.remove(*edge)
        self._height.pop(node, None)
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
        return self._reach(nodes, self.children)

    def ancestors(self, *nodes: int) -> set[int]:
        """Return all that these nodes depend on, however far."""
        return self._reach(nodes, self.parents)

    @staticmethod
    def _reach(nodes: Iterable[int], step: "object") -> set[int]:
        assert callable(step)
        found: set[int] = set()
        waiting = list(nodes)
        while waiting:
            for other in step(waiting.pop()):
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found

    def order(self, nodes: Iterable[int] | None = None) -> list[int]:
        """Return all nodes, or these, parents before children."""
        return sorted(self._height if nodes is None else nodes, key=lambda node: (self.height(node), node))

    def depth(self) -> int:
        """Return the number of edges on the longest way."""
        exact: dict[int, int] = {}
        for node in self.order():
            exact[node] = max((exact[parent] + 1 for parent in self.parents(node)), default=0)
        return max(exact.values(), default=0)

    def digest(self) -> str:
        """Return 32 hexadecimal digits, equal for equal sets of edges."""
        whole = xxhash.xxh3_128()
        for edge in self.edges():
            whole.update(RECORD.pack(*edge, 0))
        return whole.hexdigest()


class Pending:
    """Nodes that wait to be visited, each once, lowest first."""

    def __init__(self, graph: DependencyGraph) -> None:
        self._graph = graph
        self._heap: list[tuple[int, int]] = []
        self._known: set[int] = set()

    def add(self, node: int) -> None:
        """Let a node wait; one that waits or was visited in this wave is not added."""
        if node not in self._known:
            self._known.add(node)
            heappush(self._heap, (self._graph.height(node), node))

    def level(self) -> list[int]:
        """Return all waiting nodes of the lowest height, by id; none when nothing waits."""
        found: list[int] = []
        while self._heap and (not found or self._heap[0][0] == self._graph.height(found[0])):
            found.append(heappop(self._heap)[1])
        return found


def _way(came_from: dict[int, int], start: int, end: int) -> list[int]:
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return [*way[::-1], start]


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
