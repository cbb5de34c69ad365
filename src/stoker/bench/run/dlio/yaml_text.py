"""YAML from strangers, as OmegaConf reads it, without its dangers.

Events are turned into a tree by hand: tags, repeated keys, keys that are not text, deep nesting, aliases that
multiply and files out of proportion are refused, each with file and line. Plain scalars follow YAML 1.1 with
OmegaConf's two changes: `1e-3` is a number, dates are text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from stoker.bench.run.dlio.tree import FILE, Leaf, Node, Origin, Tree, copied, plain
from stoker.core.errors import UsageError
from stoker.core.plain_yaml import DEPTH_MAX, NODES_MAX, plain_scalar

FILE_BYTES_MAX: Final = 1 << 20

_NOTHING: Final = object()


def load_file(path: Path, *, kind: str = FILE) -> Tree:
    """Return the mapping in the YAML file `path`.

    Raises UsageError, with file and line, for anything but one plain mapping.
    """
    if path.exists() and not path.is_file():
        raise UsageError("not a file", where=str(path), expected="a YAML file")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        remedy = "a workload is chosen by workload=NAME" if path.suffix != ".yaml" else ""
        got = error.strerror or str(error)
        raise UsageError("file cannot be read", where=str(path), got=got, remedy=remedy) from error
    if len(data) > FILE_BYTES_MAX:
        raise UsageError("YAML file is too large", where=str(path), expected=f"at most {FILE_BYTES_MAX} bytes")
    try:
        return load_text(data.decode("utf-8"), str(path), kind=kind)
    except UnicodeDecodeError as error:
        raise UsageError("YAML file is not UTF-8 text", where=str(path), got=f"byte {error.start}") from error


def load_text(text: str, name: str, *, kind: str = FILE) -> Tree:
    """Return the mapping in the YAML text; `name` stands in messages and origins. An empty text is an empty mapping.

    Raises UsageError as `load_file` does.
    """
    reader = _Reader(text, name, kind)
    try:
        return reader.document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UsageError("not YAML", where=where, got=str(getattr(error, "problem", "") or error)) from error


class _Reader:
    """Turns the events of one text into nodes, counting them."""

    def __init__(self, text: str, name: str, kind: str) -> None:
        self._events: Iterator[Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._name = name
        self._kind = kind
        self._nodes = 0
        self._anchors: dict[str, tuple[Node, int, int]] = {}

    def document(self) -> Tree:
        """Return the only document, which must be a mapping."""
        found: Any = _NOTHING
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if found is not _NOTHING:
                    raise self._refusal(event, "YAML holds more than one document")
                found = self._node(next(self._events), 1)
        if found is _NOTHING or (isinstance(found, Leaf) and found.value is None):
            return {}
        if not isinstance(found, dict):
            raise UsageError("YAML file is not a mapping", where=self._name, expected="sections such as dataset:")
        return found

    def _node(self, event: Event, depth: int) -> Node:
        """Return the node that begins with `event`. Lists become leaves of plain data."""
        if depth > DEPTH_MAX:
            raise self._refusal(event, "YAML is nested too deeply", f"at most {DEPTH_MAX} levels")
        self._count(event, 1)
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        assert isinstance(event, (ScalarEvent, CollectionStartEvent))
        if event.tag is not None:
            raise self._refusal(event, "YAML tags are not allowed", got=event.tag)
        before = self._nodes
        node: Node
        if isinstance(event, MappingStartEvent):
            node = self._mapping(depth)
        elif isinstance(event, SequenceStartEvent):
            node = Leaf(self._sequence(depth), self._origin(event))
        else:
            assert isinstance(event, ScalarEvent)
            node = Leaf(self._scalar(event), self._origin(event), event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before + 1, _height(plain(node)))
        return node

    def _mapping(self, depth: int) -> Tree:
        tree: Tree = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                raise self._refusal(event, "YAML key is not plain text")
            if event.value == "<<":
                raise self._refusal(event, "YAML merge keys are not supported", remedy="write the keys out")
            if event.value in tree:
                raise self._refusal(event, f"YAML key {event.value!r} is given twice")
            tree[event.value] = self._node(next(self._events), depth + 1)
        return tree

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(plain(self._node(event, depth + 1)))
        return items

    def _alias(self, event: AliasEvent, depth: int) -> Node:
        if event.anchor not in self._anchors:
            raise self._refusal(event, f"YAML alias {event.anchor!r} names nothing before it")
        node, nodes, height = self._anchors[event.anchor]
        self._count(event, nodes)
        if depth + height > DEPTH_MAX:
            raise self._refusal(event, "YAML is nested too deeply", f"at most {DEPTH_MAX} levels, aliases counted")
        return copied(node) if isinstance(node, dict) else node

    def _count(self, event: Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise self._refusal(event, "YAML is out of proportion", f"at most {NODES_MAX} values, aliases counted")

    def _scalar(self, event: ScalarEvent) -> Any:
        text = event.value
        if not event.implicit[0]:
            return text
        try:
            return plain_scalar(text)
        except ValueError as error:
            raise self._refusal(event, "YAML value is not a number", got=str(error)) from error

    def _origin(self, event: Event) -> Origin:
        return Origin(self._kind, self._where(event))

    def _where(self, event: Event) -> str:
        mark = event.start_mark
        return f"{self._name}:{mark.line + 1}" if mark else self._name

    def _refusal(self, event: Event, what: str, expected: str = "", *, got: str = "", remedy: str = "") -> UsageError:
        return UsageError(what, where=self._where(event), expected=expected, got=got, remedy=remedy)


def _height(data: Any) -> int:
    """Return the levels below a value: 0 for a scalar."""
    below = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 + max((_height(item) for item in below), default=0) if isinstance(data, (dict, list)) else 0
